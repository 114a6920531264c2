// The recurrent form, token by token: exact prefix causality, and on a cpu no slower than the chunked form, whose extra
// products only tensor cores repay. Operators differ by the step (which decay, which update) and by what they multiply
// keys and outputs with.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/linear_attention/feature_map.h"
#include "ops/linear_attention/recurrence.h"
#include "ops/linear_attention/recurrence_cpu.h"

#if defined(CULEBRA_RECURRENCE_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_RECURRENCE_CPU_INL_H_
#undef CULEBRA_RECURRENCE_CPU_INL_H_
#else
#define CULEBRA_RECURRENCE_CPU_INL_H_
#endif

#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"
#include "ops/linear_attention/feature_map_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

inline constexpr int64_t kBlock = 4;  // state rows in flight at once

// Rows [first, first + rows) of one head's state: [rows][pitch], the columns padded with zeros.
struct Tile {
  float* values;
  int64_t first, rows, columns, pitch;
};

// What the tokens of a chunk contribute, in f32.
struct Chunk {
  float *q, *k;    // [tokens][pitch]; q scaled
  float* decays;   // [tokens][pitch], decay per channel only
  float *v, *o;    // [tokens][kRecurrenceRows]
  float* raw;      // a row before its feature map
  int64_t pitch;
  float kq[kRecurrenceChunk], beta[kRecurrenceChunk], decay[kRecurrenceChunk];
};

// Scratch of a thread: a chunk, and a tile for each of `tiles` memories.
struct RecurrenceScratch {
  std::vector<float> storage;
  Chunk chunk;
  float* tiles;

  RecurrenceScratch(const RecurrenceWork& w, int64_t memories) {
    const int64_t pitch = w.pitch(), tokens = w.chunk(), raw = padded(w.p->key_dim);
    const int64_t rows = tokens * pitch, values = kRecurrenceChunk * kRecurrenceRows;
    storage.resize(static_cast<size_t>(3 * rows + 2 * values + raw + memories * w.rows_per_item() * pitch));
    float* at = storage.data();
    auto take = [&](int64_t n) { return std::exchange(at, at + n); };
    chunk.q = take(rows);
    chunk.k = take(rows);
    chunk.decays = take(rows);
    chunk.v = take(values);
    chunk.o = take(values);
    chunk.raw = take(raw);
    chunk.pitch = pitch;
    tiles = at;
  }
};

HWY_INLINE void load_state(const RecurrenceParams::States& from, const float* state, Tile& s) {
  for (int64_t r = 0; r < s.rows; ++r) {
    float* row = s.values + r * s.pitch;
    if (!state) {
      std::fill(row, row + s.pitch, 0.0f);
      continue;
    }
    const float* source = state + (s.first + r) * from.v_stride;
    if (from.k_stride == 1) {
      std::memcpy(row, source, static_cast<size_t>(s.columns) * sizeof(float));
    } else {
      for (int64_t i = 0; i < s.columns; ++i) row[i] = source[i * from.k_stride];
    }
    std::fill(row + s.columns, row + s.pitch, 0.0f);
  }
}

HWY_INLINE void store_state(const Tile& s, int64_t begin, int64_t end, const RecurrenceParams::States& to,
                            float* state) {
  for (int64_t r = begin; r < end; ++r) {
    const float* row = s.values + r * s.pitch;
    float* target = state + (s.first + r) * to.v_stride;
    if (to.k_stride == 1) {
      std::memcpy(target, row, static_cast<size_t>(s.columns) * sizeof(float));
    } else {
      for (int64_t i = 0; i < s.columns; ++i) target[i * to.k_stride] = row[i];
    }
  }
}

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32Tag()));
  F32 sum = hn::Zero(F32Tag());
  for (int64_t i = 0; i < n; i += lanes) sum = hn::MulAdd(load(a + i), load(b + i), sum);
  return sum_of_lanes(sum);
}

// The log gate of one value head, in double where it is made of raw values.
HWY_INLINE float log_gate(const RecurrenceParams& p, float a, int64_t head) {
  if (p.gate_mode == GateMode::log) return a;
  const double x = static_cast<double>(a) + p.dt_bias[head * p.dt_bias_head];
  const double slope = std::exp(static_cast<double>(p.a_log[head]));
  if (p.gate_mode == GateMode::lower_bound) return static_cast<float>(p.lower_bound / (1 + std::exp(-slope * x)));
  return static_cast<float>(-slope * (x > 30 ? x : std::log1p(std::exp(x))));
}

// to = e^gate of a row of channel gates, on padded(K) elements.
HWY_INLINE void channel_decays(const RecurrenceParams& p, int64_t head, float* row) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float slope = p.a_log ? static_cast<float>(std::exp(static_cast<double>(p.a_log[head]))) : 0;
  const float* bias = p.dt_bias ? p.dt_bias + head * p.dt_bias_head : nullptr;
  if (bias)
    for (int64_t i = 0; i < p.key_dim; ++i) row[i] += bias[i];
  for (int64_t i = 0; i < padded(p.key_dim); i += lanes) {
    F32 g = load(row + i);
    if (p.gate_mode == GateMode::softplus) {
      const F32 tail = hn::Log1p(d, hn::Exp(d, hn::Neg(hn::Abs(g))));
      g = hn::Mul(hn::Set(d, -slope), hn::Add(hn::Max(g, hn::Zero(d)), tail));
    } else if (p.gate_mode == GateMode::lower_bound) {
      g = hn::Mul(hn::Set(d, p.lower_bound), sigmoid(hn::Mul(hn::Set(d, slope), g)));
    }
    store_f32(hn::Exp(d, hn::Max(g, hn::Set(d, kLowestLogGate))), row + i);
  }
}

template <class T>
HWY_INLINE T* element(const RecurrenceParams::Heads& x, int64_t batch, int64_t t, int64_t head) {
  return static_cast<T*>(x.data) + batch * x.batch + t * x.token + head * x.head;
}

// A row of q or k, mapped, normalised, scaled.
template <class T>
HWY_INLINE void load_key(const RecurrenceWork& w, const T* from, float factor, float* raw, float* to) {
  const int64_t K = w.p->key_dim, pitch = w.pitch();
  if (w.features == FeatureMap::none) {
    load_row(from, K, to);
  } else {
    load_row(from, K, raw);
    map_features(w.features, raw, K, to);
  }
  if (w.p->l2norm) factor /= std::sqrt(dot(to, to, pitch) + kL2NormEps);
  if (factor != 1) scale_row(to, factor, pitch);
}

template <class T>
HWY_INLINE void load_chunk(const RecurrenceWork& w, int64_t batch, int64_t token, int64_t count, int64_t head,
                           const Tile& s, Chunk& c) {
  const RecurrenceParams& p = *w.p;
  const int64_t key_head = p.key_head(head);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t t = token + i;
    float *q = c.q + i * c.pitch, *k = c.k + i * c.pitch;
    load_key(w, element<const T>(p.q, batch, t, key_head), p.scale, c.raw, q);
    load_key(w, element<const T>(p.k, batch, t, key_head), w.prepared ? w.at(w.weight, batch, t, head) : 1, c.raw, k);
    load_row(element<const T>(p.v, batch, t, head) + s.first, s.rows, c.v + i * kRecurrenceRows);
    c.kq[i] = 0;
    if (p.delta()) {
      c.kq[i] = dot(k, q, c.pitch);
      c.beta[i] = *element<const float>(p.beta, batch, t, head);
    }
    c.decay[i] = 1;
    if (w.prepared) {
      c.decay[i] = w.at(w.decay, batch, t, head);
    } else if (p.decay == Decay::channel) {
      float* decays = c.decays + i * c.pitch;
      if (p.gate_mode == GateMode::log) {
        load_row(element<const float>(p.gate, batch, t, head), p.key_dim, decays);
      } else {
        load_row(element<const T>(p.gate, batch, t, head), p.key_dim, decays);
      }
      channel_decays(p, head, decays);
    } else if (p.decay != Decay::none) {
      const float g = p.gate_mode == GateMode::log ? *element<const float>(p.gate, batch, t, head)
                                                   : to_float(*element<const T>(p.gate, batch, t, head));
      c.decay[i] = std::exp(std::max(log_gate(p, g, head), kLowestLogGate));
    }
  }
}

// The sum of weighted keys of one head, which a query's product normalises outputs with: one more state row, in double.
class Normaliser {
 public:
  explicit Normaliser(int64_t columns) : sum_(static_cast<size_t>(columns)) {}

  void start(const float* from) {
    for (size_t i = 0; i < sum_.size(); ++i) sum_[i] = from ? static_cast<double>(from[i]) : 0;
  }
  // sum = decay sum + weight k
  void add(double decay, double weight, const float* k) {
    for (size_t i = 0; i < sum_.size(); ++i) sum_[i] = decay * sum_[i] + weight * static_cast<double>(k[i]);
  }
  double dot(const float* q) const {
    double partial[8] = {};  // lets the compiler vectorize
    size_t i = 0;
    for (; i + 8 <= sum_.size(); i += 8)
      for (size_t j = 0; j < 8; ++j) partial[j] += sum_[i + j] * static_cast<double>(q[i + j]);
    for (; i < sum_.size(); ++i) partial[0] += sum_[i] * static_cast<double>(q[i]);
    return ((partial[0] + partial[4]) + (partial[1] + partial[5])) + ((partial[2] + partial[6]) + (partial[3] + partial[7]));
  }
  void store(float* to) const {
    for (size_t i = 0; i < sum_.size(); ++i) to[i] = static_cast<float>(sum_[i]);
  }

 private:
  std::vector<double> sum_;
};

// One token on kBlock state rows. The delta rule: with the decayed old state S: u = S k, d = beta (v - u),
// S' = S + d k^T, and o = S' q = S q + d (k q), so that both products come from one pass over the old rows.
template <bool kChannel, bool kDelta>
HWY_INLINE void step(float* state, int64_t pitch, const Chunk& c, int64_t t, const float* v, float* o) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const F32 zero = hn::Zero(d), e = hn::Set(d, c.decay[t]);
  const float *ks = c.k + t * c.pitch, *qs = c.q + t * c.pitch, *es = c.decays + t * c.pitch;
  float *const s0 = state, *const s1 = state + pitch, *const s2 = state + 2 * pitch, *const s3 = state + 3 * pitch;
  F32 sq0 = zero, sq1 = zero, sq2 = zero, sq3 = zero;
  auto decay = [&](int64_t i) {
    if constexpr (kChannel) return load(es + i);
    return e;
  };
  if constexpr (!kDelta) {
    const F32 v0 = hn::Set(d, v[0]), v1 = hn::Set(d, v[1]), v2 = hn::Set(d, v[2]), v3 = hn::Set(d, v[3]);
    for (int64_t i = 0; i < pitch; i += lanes) {
      const F32 k = load(ks + i), q = load(qs + i), f = decay(i);
      const F32 x0 = hn::MulAdd(v0, k, hn::Mul(f, load(s0 + i))), x1 = hn::MulAdd(v1, k, hn::Mul(f, load(s1 + i)));
      const F32 x2 = hn::MulAdd(v2, k, hn::Mul(f, load(s2 + i))), x3 = hn::MulAdd(v3, k, hn::Mul(f, load(s3 + i)));
      store_f32(x0, s0 + i);
      store_f32(x1, s1 + i);
      store_f32(x2, s2 + i);
      store_f32(x3, s3 + i);
      sq0 = hn::MulAdd(x0, q, sq0);
      sq1 = hn::MulAdd(x1, q, sq1);
      sq2 = hn::MulAdd(x2, q, sq2);
      sq3 = hn::MulAdd(x3, q, sq3);
    }
    sum_of_lanes(sq0, sq1, sq2, sq3, o);
  } else {
    F32 sk0 = zero, sk1 = zero, sk2 = zero, sk3 = zero;
    for (int64_t i = 0; i < pitch; i += lanes) {
      const F32 k = load(ks + i), q = load(qs + i), f = decay(i);
      const F32 x0 = hn::Mul(f, load(s0 + i)), x1 = hn::Mul(f, load(s1 + i));
      const F32 x2 = hn::Mul(f, load(s2 + i)), x3 = hn::Mul(f, load(s3 + i));
      sk0 = hn::MulAdd(x0, k, sk0);
      sk1 = hn::MulAdd(x1, k, sk1);
      sk2 = hn::MulAdd(x2, k, sk2);
      sk3 = hn::MulAdd(x3, k, sk3);
      sq0 = hn::MulAdd(x0, q, sq0);
      sq1 = hn::MulAdd(x1, q, sq1);
      sq2 = hn::MulAdd(x2, q, sq2);
      sq3 = hn::MulAdd(x3, q, sq3);
    }
    float sk[kBlock], delta[kBlock];
    sum_of_lanes(sk0, sk1, sk2, sk3, sk);
    sum_of_lanes(sq0, sq1, sq2, sq3, o);
    for (int r = 0; r < kBlock; ++r) {
      delta[r] = c.beta[t] * (v[r] - sk[r]);
      o[r] += delta[r] * c.kq[t];
    }
    const F32 d0 = hn::Set(d, delta[0]), d1 = hn::Set(d, delta[1]), d2 = hn::Set(d, delta[2]);
    const F32 d3 = hn::Set(d, delta[3]);
    for (int64_t i = 0; i < pitch; i += lanes) {
      const F32 k = load(ks + i), f = decay(i);
      store_f32(hn::MulAdd(d0, k, hn::Mul(f, load(s0 + i))), s0 + i);
      store_f32(hn::MulAdd(d1, k, hn::Mul(f, load(s1 + i))), s1 + i);
      store_f32(hn::MulAdd(d2, k, hn::Mul(f, load(s2 + i))), s2 + i);
      store_f32(hn::MulAdd(d3, k, hn::Mul(f, load(s3 + i))), s3 + i);
    }
  }
}

using Step = void (*)(float* state, int64_t pitch, const Chunk& c, int64_t t, const float* v, float* o);

HWY_INLINE Step step_of(const RecurrenceParams& p) {
  const bool channel = p.decay == Decay::channel;
  if (p.delta()) return channel ? &step<true, true> : &step<false, true>;
  return channel ? &step<true, false> : &step<false, false>;
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

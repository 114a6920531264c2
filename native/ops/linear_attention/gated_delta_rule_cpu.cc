// The recurrent form, token by token: exact prefix causality, and on a cpu no slower than the chunked form, whose extra
// products only tensor cores repay.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/cpu/thread_pool.h"
#include "ops/linear_attention/gated_delta_rule.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/gated_delta_rule_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = GatedDeltaRuleParams;

constexpr int64_t kMaxDim = 256;
constexpr int64_t kRows = Params::kRowsPerItem;
constexpr int64_t kBlock = 4;   // rows in flight at once
constexpr int64_t kChunk = 32;  // tokens converted at once

// What the tokens of a chunk contribute, in f32.
struct Chunk {
  alignas(64) float q[kChunk][kMaxDim];  // scaled
  alignas(64) float k[kChunk][kMaxDim];
  alignas(64) float v[kChunk][kRows];
  alignas(64) float o[kChunk][kRows];
  float kq[kChunk], beta[kChunk], decay[kChunk];
};

// Rows [first, first + rows) of one head's state: [V][K], K padded with zeros.
struct Tile {
  int64_t first, rows, key_dim, pitch;
  alignas(64) float values[kRows * kMaxDim];
};

HWY_INLINE void load_state(const Params::States& from, const float* state, Tile& s) {
  for (int64_t r = 0; r < s.rows; ++r) {
    float* row = s.values + r * s.pitch;
    if (!state) {
      std::fill(row, row + s.pitch, 0.0f);
      continue;
    }
    const float* source = state + (s.first + r) * from.v_stride;
    if (from.k_stride == 1) {
      std::memcpy(row, source, static_cast<size_t>(s.key_dim) * sizeof(float));
    } else {
      for (int64_t i = 0; i < s.key_dim; ++i) row[i] = source[i * from.k_stride];
    }
    std::fill(row + s.key_dim, row + s.pitch, 0.0f);
  }
}

HWY_INLINE void store_state(const Tile& s, int64_t begin, int64_t end, const Params::States& to, float* state) {
  for (int64_t r = begin; r < end; ++r) {
    const float* row = s.values + r * s.pitch;
    float* target = state + (s.first + r) * to.v_stride;
    if (to.k_stride == 1) {
      std::memcpy(target, row, static_cast<size_t>(s.key_dim) * sizeof(float));
    } else {
      for (int64_t i = 0; i < s.key_dim; ++i) target[i * to.k_stride] = row[i];
    }
  }
}

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32Tag()));
  F32 sum = hn::Zero(F32Tag());
  for (int64_t i = 0; i < n; i += lanes) sum = hn::MulAdd(load(a + i), load(b + i), sum);
  return sum_of_lanes(sum);
}

template <class T>
HWY_INLINE float decay_of(const Params& p, const T* gate, int64_t head) {
  float g = to_float(*gate);
  if (p.a_log) {
    const double x = static_cast<double>(g) + p.dt_bias[head];
    const double softplus = x > 30 ? x : std::log1p(std::exp(x));
    g = static_cast<float>(-std::exp(static_cast<double>(p.a_log[head])) * softplus);
  }
  return std::exp(g < -30.0f ? -30.0f : g);
}

template <class T>
HWY_INLINE void load_chunk(const Params& p, int64_t batch, int64_t token, int64_t count, int64_t head, const Tile& s,
                           Chunk& c) {
  const int64_t key_head = head / (p.value_heads / p.key_heads);
  auto at = [&](const Params::Heads& x, int64_t t, int64_t h) {
    return static_cast<T*>(x.data) + batch * x.batch + t * x.token + h * x.head;
  };
  for (int64_t i = 0; i < count; ++i) {
    const int64_t t = token + i;
    load_row(at(p.q, t, key_head), p.key_dim, c.q[i]);
    load_row(at(p.k, t, key_head), p.key_dim, c.k[i]);
    float q_factor = p.scale;
    if (p.l2norm) {
      q_factor /= std::sqrt(dot(c.q[i], c.q[i], s.pitch) + 1e-6f);
      scale_row(c.k[i], 1 / std::sqrt(dot(c.k[i], c.k[i], s.pitch) + 1e-6f), s.pitch);
    }
    scale_row(c.q[i], q_factor, s.pitch);
    c.kq[i] = dot(c.k[i], c.q[i], s.pitch);
    load_row(at(p.v, t, head) + s.first, s.rows, c.v[i]);
    const float* beta = static_cast<const float*>(p.beta.data) + batch * p.beta.batch + t * p.beta.token;
    c.beta[i] = beta[head];
    c.decay[i] =
        p.a_log ? decay_of(p, at(p.gate, t, head), head)
                : decay_of(p, static_cast<const float*>(p.gate.data) + batch * p.gate.batch + t * p.gate.token + head,
                           head);
  }
}

// One token on kBlock state rows. With the decayed old state S: u = S k, d = beta (v - u), S' = S + d k^T, and
// o = S' q = S q + d (k q), so that both products come from one pass over the old rows.
HWY_INLINE void step(float* state, int64_t pitch, const Chunk& c, int64_t t, const float* v, float* o) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  F32 sk0 = hn::Zero(d), sk1 = sk0, sk2 = sk0, sk3 = sk0, sq0 = sk0, sq1 = sk0, sq2 = sk0, sq3 = sk0;
  float* const s0 = state;
  float* const s1 = state + pitch;
  float* const s2 = state + 2 * pitch;
  float* const s3 = state + 3 * pitch;
  for (int64_t i = 0; i < pitch; i += lanes) {
    const F32 k = load(c.k[t] + i), q = load(c.q[t] + i);
    const F32 x0 = load(s0 + i), x1 = load(s1 + i), x2 = load(s2 + i), x3 = load(s3 + i);
    sk0 = hn::MulAdd(x0, k, sk0);
    sk1 = hn::MulAdd(x1, k, sk1);
    sk2 = hn::MulAdd(x2, k, sk2);
    sk3 = hn::MulAdd(x3, k, sk3);
    sq0 = hn::MulAdd(x0, q, sq0);
    sq1 = hn::MulAdd(x1, q, sq1);
    sq2 = hn::MulAdd(x2, q, sq2);
    sq3 = hn::MulAdd(x3, q, sq3);
  }
  const float decay = c.decay[t], beta = c.beta[t], kq = c.kq[t];
  float sk[kBlock], sq[kBlock], delta[kBlock];
  sum_of_lanes(sk0, sk1, sk2, sk3, sk);
  sum_of_lanes(sq0, sq1, sq2, sq3, sq);
  for (int r = 0; r < kBlock; ++r) {
    delta[r] = beta * (v[r] - decay * sk[r]);
    o[r] = decay * sq[r] + delta[r] * kq;
  }
  const F32 e = hn::Set(d, decay);
  const F32 d0 = hn::Set(d, delta[0]), d1 = hn::Set(d, delta[1]), d2 = hn::Set(d, delta[2]), d3 = hn::Set(d, delta[3]);
  for (int64_t i = 0; i < pitch; i += lanes) {
    const F32 k = load(c.k[t] + i);
    store_f32(hn::MulAdd(d0, k, hn::Mul(e, load(s0 + i))), s0 + i);
    store_f32(hn::MulAdd(d1, k, hn::Mul(e, load(s1 + i))), s1 + i);
    store_f32(hn::MulAdd(d2, k, hn::Mul(e, load(s2 + i))), s2 + i);
    store_f32(hn::MulAdd(d3, k, hn::Mul(e, load(s3 + i))), s3 + i);
  }
}

// Rows [s.first, s.first + s.rows) of one head of one sequence, from its first token to its last.
template <class T>
void run_rows(const Params& p, const Sequence& seq, int64_t head, int64_t first_checkpoint, Tile& s, Chunk& c) {
  auto out = [&](int64_t t) {
    return static_cast<T*>(p.o.data) + seq.batch * p.o.batch + (seq.begin + t) * p.o.token + head * p.o.head + s.first;
  };
  auto checkpoint = [&](int64_t after) {
    return p.checkpoints.at(first_checkpoint + after / p.checkpoint_every - 1, head);
  };
  if (seq.skipped) {
    for (int64_t t = 0; t < seq.length; ++t) std::fill(out(t), out(t) + s.rows, T{});
    if (p.checkpoint_every) {
      load_state({}, nullptr, s);
      for (int64_t after = p.checkpoint_every; after <= seq.length; after += p.checkpoint_every)
        store_state(s, 0, s.rows, p.checkpoints, checkpoint(after));
    }
    return;
  }
  load_state(p.initial, p.initial.data ? p.initial.at(seq.read_row, head) : nullptr, s);
  for (int64_t begin = 0; begin < seq.length; begin += kChunk) {
    const int64_t count = std::min(kChunk, seq.length - begin);
    load_chunk<T>(p, seq.batch, seq.begin + begin, count, head, s, c);
    for (int64_t r = 0; r < s.rows; r += kBlock)
      for (int64_t t = 0; t < count; ++t) {
        step(s.values + r * s.pitch, s.pitch, c, t, c.v[t] + r, c.o[t] + r);
        const int64_t after = begin + t + 1;
        if (p.checkpoint_every && after % p.checkpoint_every == 0)
          store_state(s, r, r + kBlock, p.checkpoints, checkpoint(after));
      }
    for (int64_t t = 0; t < count; ++t) store_row(c.o[t], s.rows, out(begin + t));
  }
  if (p.final.data) store_state(s, 0, s.rows, p.final, p.final.at(seq.write_row, head));
}

// Work items: (sequence, value head, kRows rows of the state). Rows do not depend on each other.
void gated_delta_rule_items(const Params& p, int64_t begin, int64_t end) {
  const int64_t row_groups = p.row_groups(), per_sequence = p.value_heads * row_groups;
  Chunk chunk;
  Tile tile;
  tile.key_dim = p.key_dim;
  tile.pitch = padded(p.key_dim);
  int64_t counted = 0, checkpoints = 0;  // of the sequences before `counted`
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / per_sequence, head = item % per_sequence / row_groups;
    if (p.checkpoint_every)
      for (; counted < n; ++counted) checkpoints += p.sequences.at(counted).length / p.checkpoint_every;
    tile.first = item % row_groups * kRows;
    tile.rows = std::min(kRows, p.value_dim - tile.first);
    with_float_type(p.dtype,
                    [&](auto type) { run_rows<decltype(type)>(p, p.sequences.at(n), head, checkpoints, tile, chunk); });
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(gated_delta_rule_items);

void gated_delta_rule(const GatedDeltaRuleParams& p, ThreadPool& pool) {
  p.sequences.require_valid("gated_delta_rule");
  if (p.checkpoint_every) {
    int64_t needed = 0;
    for (int64_t n = 0; n < p.sequences.count; ++n) needed += p.sequences.at(n).length / p.checkpoint_every;
    if (needed > p.checkpoint_count)
      throw DeviceError(format("gated_delta_rule: checkpoints has %lld rows, but the lengths in cu_seqlens give %lld",
                               static_cast<long long>(p.checkpoint_count), static_cast<long long>(needed)));
  }
  const int64_t items = p.sequences.count * p.value_heads * p.row_groups();
  if (items == 0) return;
  // A piece is worth waking a thread for from about 2^16 state updates on.
  const int64_t tokens = p.sequences.cu_seqlens ? p.sequences.tokens / p.sequences.count : p.sequences.tokens;
  const int64_t grain = 65536 / (p.kRowsPerItem * p.key_dim * (tokens + 1)) + 1;
  const auto run = HWY_DYNAMIC_DISPATCH(gated_delta_rule_items);
  pool.parallel_for(items, grain, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

// A tile of tokens of one head: the first convolution, then the second as products with rows of weights, then the rest of the
// head while it is in the cache.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/kv_cache/cca_qkv.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/kv_cache/cca_qkv_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

constexpr int64_t kTokens = 64;  // of one work item: they share the conversion of the head's weights

struct HeadScratch {
  std::vector<float> weights;         // [D, 2 pitch]: a channel's weights of the token before, then of the token
  std::vector<float> y1;              // [tokens + 1, pitch]
  std::vector<float> both, out, row;  // one token: y1 of the token before and its own; the head; one operand
};

template <class T>
void load_weights(const CcaParams& p, int64_t head, HeadScratch& s) {
  const int64_t D = p.dim, pitch = padded(D);
  s.weights.assign(static_cast<size_t>(D * 2 * pitch), 0.0f);
  for (int64_t c = 0; c < D; ++c)
    for (int64_t i = 0; i < D; ++i) {
      const T* w = p.conv2_w.at<const T>(0, head * D + c, i);
      s.weights[static_cast<size_t>(c * 2 * pitch + i)] = to_float(w[0]);
      s.weights[static_cast<size_t>(c * 2 * pitch + pitch + i)] = to_float(w[1]);
    }
}

// out += m, of a query head: (x_q + x_k) / 2; of a key head the mean of that over the group.
template <class T>
void add_mean(const CcaParams& p, int64_t b, int64_t t, int64_t head, HeadScratch& s) {
  const F32Tag d;
  const int64_t D = p.dim, group = p.group();
  const bool query = head < p.query_heads;
  const int64_t kv = query ? head / group : head - p.query_heads;
  const auto add = [&](const T* x, float factor) {
    load_row(x, D, s.row.data());
    for (int64_t i = 0; i < D; i += kLanes)
      store_f32(hn::MulAdd(hn::Set(d, factor), load(s.row.data() + i), load(s.out.data() + i)), s.out.data() + i);
  };
  add(p.x_k.at<const T>(b, t, kv), 0.5f);
  if (query) return add(p.x_q.at<const T>(b, t, head), 0.5f);
  for (int64_t g = 0; g < group; ++g) add(p.x_q.at<const T>(b, t, kv * group + g), 0.5f / static_cast<float>(group));
}

void rotate(const CcaParams& p, int64_t b, int64_t t, float* x) {
  const int64_t pairs = p.rotary_pairs;
  if (pairs == 0) return;
  const float* cos = p.cos.at<const float>(b, t, 0);
  const float* sin = p.sin.at<const float>(b, t, 0);
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[i], c = x[i + pairs];
    x[i] = a * cos[i] - c * sin[i];
    x[i + pairs] = c * cos[i] + a * sin[i];
  }
}

// Tokens [begin, end) of one head.
template <class T>
void cca_head(const CcaParams& p, int64_t b, int64_t head, int64_t begin, int64_t end, HeadScratch& s) {
  const int64_t D = p.dim, pitch = padded(D);
  load_weights<T>(p, head, s);
  s.y1.assign(static_cast<size_t>((end - begin + 1) * pitch), 0.0f);
  for (int64_t t = begin - 1; t < end; ++t)
    for (int64_t i = 0; i < D; ++i)
      s.y1[static_cast<size_t>((t - begin + 1) * pitch + i)] = p.y1<T>(b, t, head, i);
  s.out.assign(static_cast<size_t>(pitch + kRowPad), 0.0f);
  s.row.resize(static_cast<size_t>(pitch));
  const T* bias = static_cast<const T*>(p.conv2_b);
  const bool query = head < p.query_heads;
  const int64_t kv = head - p.query_heads;
  for (int64_t t = begin; t < end; ++t) {
    // Rows t - 1 and t of y1 are neighbours: one vector of 2 pitch elements.
    dot_keys(s.y1.data() + (t - begin) * pitch, s.weights.data(), 2 * pitch, KeyRun{0}, D, s.out.data());
    std::fill(s.out.begin() + D, s.out.end(), 0.0f);
    if (bias)
      for (int64_t c = 0; c < D; ++c) s.out[static_cast<size_t>(c)] += to_float(bias[head * D + c]);
    add_mean<T>(p, b, t, head, s);
    F32 squares = hn::Zero(F32Tag());
    for (int64_t i = 0; i < D; i += kLanes)
      squares = hn::MulAdd(load(s.out.data() + i), load(s.out.data() + i), squares);
    const float norm = std::sqrt(sum_of_lanes(squares));
    float factor = std::sqrt(static_cast<float>(D)) / std::max(norm, 1e-6f);
    if (norm != norm) factor = norm;
    if (!query) factor *= p.temp[kv];
    scale_row(s.out.data(), factor, D);
    rotate(p, b, t, s.out.data());
    store_row(s.out.data(), D, query ? p.q.at<T>(b, t, head) : p.k.at<T>(b, t, kv));
    if (query) continue;
    T* v = p.v.at<T>(b, t, kv);
    for (int64_t i = 0; i < D; ++i) v[i] = p.value<T>(b, t, kv * D + i);
  }
}

// Work items: (batch, head, kTokens tokens).
void cca_items(const CcaParams& p, int64_t begin, int64_t end) {
  static thread_local HeadScratch scratch;
  const int64_t tiles = (p.tokens + kTokens - 1) / kTokens;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i % tiles * kTokens;
    with_float_type(p.dtype, [&](auto type) {
      cca_head<decltype(type)>(p, i / tiles / p.heads(), i / tiles % p.heads(), first,
                               std::min(first + kTokens, p.tokens), scratch);
    });
  }
}

// Reads all of the old states before it writes the new ones: they may be one memory.
void cca_states(const CcaParams& p) {
  if (!p.new_conv_state.data) return;
  with_float_type(p.dtype, [&](auto type) {
    using T = decltype(type);
    const auto x = [&](int64_t b, int64_t t, int64_t c) {
      if (t < 0) return p.conv_state.data ? p.conv_state.at<const T>(b, c, 0)[t + 2] : T{};
      const int64_t head = c / p.dim, i = c % p.dim;
      return head < p.query_heads ? p.x_q.at<const T>(b, t, head)[i] : p.x_k.at<const T>(b, t, head - p.query_heads)[i];
    };
    for (int64_t b = 0; b < p.batch; ++b) {
      for (int64_t c = 0; c < p.heads() * p.dim; ++c) {
        const T older = x(b, p.tokens - 2, c), newer = x(b, p.tokens - 1, c);
        T* to = p.new_conv_state.at<T>(b, c, 0);
        to[0] = older;
        to[1] = newer;
      }
      for (int64_t c = 0; c < p.value_half(); ++c) {
        T* to = p.new_v_state.at<T>(b, 0, 0) + c;
        *to = p.tokens > 0 ? p.x_v2.at<const T>(b, p.tokens - 1, 0)[c]
                           : p.v_state.data ? p.v_state.at<const T>(b, 0, 0)[c] : T{};
      }
    }
  });
}

int64_t cca_item_count(const CcaParams& p) { return (p.tokens + kTokens - 1) / kTokens * p.batch * p.heads(); }

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(cca_items);
HWY_EXPORT(cca_item_count);
HWY_EXPORT(cca_states);

void cca_qkv(const CcaParams& p, ThreadPool& pool) {
  const auto run = HWY_DYNAMIC_DISPATCH(cca_items);
  pool.parallel_for(HWY_DYNAMIC_DISPATCH(cca_item_count)(p), 1,
                    [&](int64_t begin, int64_t end) { run(p, begin, end); });
  HWY_DYNAMIC_DISPATCH(cca_states)(p);
}

}  // namespace culebra::cpu
#endif

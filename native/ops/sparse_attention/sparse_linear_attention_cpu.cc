// One (batch, head) at a time: first its key blocks' means and states, in parallel; then its query blocks, each with its critical
// blocks in one softmax (attention/query_tile-inl.h) and the sum of its linear blocks' states.
#include <algorithm>
#include <numeric>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/attention/top_keys.h"
#include "ops/sparse_attention/sparse_linear_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/sparse_attention/sparse_linear_attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = SparseLinearParams;

template <class E>
E* in_workspace(const Params& p, uint64_t at) {
  return reinterpret_cast<E*>(static_cast<char*>(p.workspace) + at);
}

// x = phi(x) on n elements, 0 behind them.
void feature_map(int phi, float* x, int64_t n) {
  const F32Tag d;
  const F32 zero = hn::Zero(d), one = hn::Set(d, 1.0f);
  if (phi == CUL_SLA_SOFTMAX) {
    const float max = *std::max_element(x, x + n);
    for (int64_t i = 0; i < n; i += kLanes) store_f32(hn::Exp(d, hn::Sub(load(x + i), hn::Set(d, max))), x + i);
    std::fill(x + n, x + padded(n), 0.0f);
    F32 sum = zero;
    for (int64_t i = 0; i < n; i += kLanes) sum = hn::Add(sum, load(x + i));
    return scale_row(x, 1 / sum_of_lanes(sum), n);
  }
  for (int64_t i = 0; i < n; i += kLanes) {
    const F32 v = load(x + i);
    const F32 low = phi == CUL_SLA_RELU ? zero : hn::Exp(d, hn::Min(v, zero));
    const F32 high = phi == CUL_SLA_RELU ? v : hn::Add(v, one);
    store_f32(hn::IfThenElse(hn::Or(hn::Gt(v, zero), hn::IsNaN(v)), high, low), x + i);
  }
  std::fill(x + n, x + padded(n), 0.0f);
}

HWY_INLINE void add_scaled(float* sum, const float* x, float factor, int64_t n) {
  const F32 f = hn::Set(F32Tag(), factor);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_f32(hn::MulAdd(f, load(x + i), load(sum + i)), sum + i);
  for (; i < n; ++i) sum[i] += factor * x[i];
}

template <class T>
void mean_of(const Params& p, const Params::Rows& x, int64_t b, int64_t h, int64_t j, float* mean) {
  std::vector<float> row(static_cast<size_t>(padded(p.dim)));
  std::fill_n(mean, p.dim, 0.0f);
  const int64_t begin = j * p.block, end = p.block_end(j);
  for (int64_t t = begin; t < end; ++t) {
    load_row(x.at<const T>(b, h, t), p.dim, row.data());
    add_scaled(mean, row.data(), 1.0f, p.dim);
  }
  for (int64_t i = 0; i < p.dim; ++i) mean[i] /= static_cast<float>(end - begin);
}

// Blocks [begin, end): means of queries and keys; states of keys.
template <class T>
void prepare(const Params& p, int64_t b, int64_t h, int64_t begin, int64_t end) {
  const int64_t D = p.dim;
  float* means = in_workspace<float>(p, p.plan.means_at);
  std::vector<float> key(static_cast<size_t>(padded(D))), value(key);
  for (int64_t j = begin; j < end; ++j) {
    mean_of<T>(p, p.q, b, h, j, means + j * D);
    mean_of<T>(p, p.k, b, h, j, means + (p.blocks + j) * D);
    if (!p.has_linear()) continue;
    float* state = in_workspace<float>(p, p.plan.states_at) + j * (D + 1) * D;
    std::fill_n(state, (D + 1) * D, 0.0f);
    for (int64_t t = j * p.block; t < p.block_end(j); ++t) {
      load_row(p.k.at<const T>(b, h, t), D, key.data());
      feature_map(p.phi, key.data(), D);
      load_row(p.v.at<const T>(b, h, t), D, value.data());
      for (int64_t i = 0; i < D; ++i) add_scaled(state + i * D, value.data(), key[static_cast<size_t>(i)], D);
      add_scaled(state + D * D, key.data(), 1.0f, D);
    }
  }
}

// Which class each key block has for query block i.
void classify(const Params& p, int64_t i, uint8_t* classes) {
  const float* means = in_workspace<float>(p, p.plan.means_at);
  std::vector<uint32_t> keys(static_cast<size_t>(p.blocks)), reordered;
  for (int64_t j = 0; j < p.blocks; ++j) {
    const float* a = means + i * p.dim;
    const float* c = means + (p.blocks + j) * p.dim;
    keys[static_cast<size_t>(j)] = order_key(p.scale * std::inner_product(a, a + p.dim, c, 0.0f));
  }
  // The `count` first in the order of falling score get no higher class than `at_most`.
  const auto lower = [&](int64_t count, uint8_t at_most) {
    if (count == 0) return;
    reordered = keys;
    TopKeys top = top_keys(reordered.data(), p.blocks, count);
    for (int64_t j = 0; j < p.blocks; ++j) {
      const uint32_t key = keys[static_cast<size_t>(j)];
      if (key > top.least || (key == top.least && top.equals-- > 0)) classes[j] = at_most;
    }
  };
  std::fill_n(classes, p.blocks, Params::kNegligible);
  lower(p.blocks - p.negligible, Params::kMarginal);
  lower(p.critical, Params::kCritical);
}

// sum += the states of the blocks that are linear for a query block with these classes; null: of all.
void sum_states(const Params& p, const uint8_t* classes, float* sum) {
  const int64_t size = (p.dim + 1) * p.dim;
  std::fill_n(sum, size, 0.0f);
  for (int64_t j = 0; j < p.blocks; ++j)
    if (!classes || p.is_linear(classes[j]))
      add_scaled(sum, in_workspace<float>(p, p.plan.states_at) + j * size, 1.0f, size);
}

// What one thread works with.
struct Scratch {
  std::vector<float> tile, sum, weights, row, linear, projected;
};

// o of query block i, whose rows' exact parts are in the tile.
template <class T>
void add_linear(const Params& p, int64_t b, int64_t h, int64_t i, const float* sum, QueryTile& tile, Scratch& s) {
  const int64_t D = p.dim, pitch = padded(D);
  s.row.resize(static_cast<size_t>(pitch));
  s.linear.assign(static_cast<size_t>(pitch), 0.0f);
  s.projected.resize(static_cast<size_t>(pitch + kRowPad));
  for (int64_t t = i * p.block; t < p.block_end(i); ++t) {
    float* out = tile.output(t - i * p.block);
    if (p.has_linear()) {
      load_row(p.q.at<const T>(b, h, t), D, s.row.data());
      feature_map(p.phi, s.row.data(), D);
      std::fill(s.linear.begin(), s.linear.end(), 0.0f);
      for (int64_t c = 0; c < D; ++c) add_scaled(s.linear.data(), sum + c * D, s.row[static_cast<size_t>(c)], D);
      const float norm = std::inner_product(s.row.begin(), s.row.begin() + D, sum + D * D, 0.0f) + p.eps;
      for (int64_t c = 0; c < D; ++c) s.linear[static_cast<size_t>(c)] /= norm;
    }
    if (!p.proj_w) {
      if (p.has_linear()) add_scaled(out, s.linear.data(), 1.0f, D);
      continue;
    }
    dot_keys(s.linear.data(), s.weights.data(), pitch, KeyRun{0}, D, s.projected.data());
    add_scaled(out, s.projected.data(), 1.0f, D);
    if (p.proj_b)
      for (int64_t c = 0; c < D; ++c) out[c] += to_float(static_cast<const T*>(p.proj_b)[c]);
  }
}

template <class T>
void query_blocks(const Params& p, int64_t b, int64_t h, int64_t begin, int64_t end, Scratch& s) {
  const int64_t D = p.dim, pitch = padded(D);
  QueryTile tile(s.tile, D, D, p.block);
  tile.by_matrix(p.block >= QueryTile::kMatrixRows);
  if (p.proj_w) {
    s.weights.resize(static_cast<size_t>(D * pitch));
    for (int64_t c = 0; c < D; ++c)
      load_row(static_cast<const T*>(p.proj_w) + c * p.proj_stride, D, s.weights.data() + c * pitch);
  }
  const float* sum = in_workspace<float>(p, p.plan.sums_at);
  if (p.has_linear() && p.mode != CUL_SLA_ALL) {
    s.sum.resize(static_cast<size_t>((D + 1) * D));
    sum = s.sum.data();
  }
  for (int64_t i = begin; i < end; ++i) {
    uint8_t* classes = in_workspace<uint8_t>(p, p.plan.classes_at) + i * p.blocks;
    classify(p, i, classes);
    const int64_t rows = p.block_end(i) - i * p.block;
    tile.reset(rows);
    for (int64_t r = 0; r < rows; ++r) {
      tile.query(r, p.q.at<const T>(b, h, i * p.block + r), p.scale);
      tile.visible(r) = {0, p.length};
    }
    for (int64_t j = 0; j < p.blocks; ++j)
      if (classes[j] == Params::kCritical)
        tile.meet<T>(0, rows, {j * p.block, p.block_end(j)},
                     [&](int64_t t) { return std::pair{p.k.at<const T>(b, h, t), p.v.at<const T>(b, h, t)}; });
    for (int64_t r = 0; r < rows; ++r) tile.finish(r);
    if (p.has_linear() && p.mode != CUL_SLA_ALL) sum_states(p, classes, s.sum.data());
    add_linear<T>(p, b, h, i, sum, tile, s);
    for (int64_t r = 0; r < rows; ++r) store_row(tile.output(r), D, p.o.at<T>(b, h, i * p.block + r));
  }
}

void sla_prepare(const Params& p, int64_t b, int64_t h, int64_t begin, int64_t end) {
  with_float_type(p.dtype, [&](auto type) { prepare<decltype(type)>(p, b, h, begin, end); });
}
void sla_total(const Params& p) {
  if (p.has_linear() && p.mode == CUL_SLA_ALL) sum_states(p, nullptr, in_workspace<float>(p, p.plan.sums_at));
}
void sla_query_blocks(const Params& p, int64_t b, int64_t h, int64_t begin, int64_t end) {
  static thread_local Scratch scratch;
  with_float_type(p.dtype, [&](auto type) { query_blocks<decltype(type)>(p, b, h, begin, end, scratch); });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(sla_prepare);
HWY_EXPORT(sla_total);
HWY_EXPORT(sla_query_blocks);

void sparse_linear_attention(const SparseLinearParams& p, ThreadPool& pool) {
  const auto prepare = HWY_DYNAMIC_DISPATCH(sla_prepare);
  const auto run = HWY_DYNAMIC_DISPATCH(sla_query_blocks);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t h = 0; h < p.heads; ++h) {
      pool.parallel_for(p.blocks, 1, [&](int64_t begin, int64_t end) { prepare(p, b, h, begin, end); });
      HWY_DYNAMIC_DISPATCH(sla_total)(p);
      pool.parallel_for(p.blocks, 1, [&](int64_t begin, int64_t end) { run(p, b, h, begin, end); });
    }
}

}  // namespace culebra::cpu
#endif

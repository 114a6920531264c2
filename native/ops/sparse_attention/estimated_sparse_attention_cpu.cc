// A query block of one head: its certain blocks enter the softmax first, whose state gives the rows' thresholds; then each other
// block that has a score above one. The estimate is the score itself in f32: beside it, an integer product of eight bits saves
// less than the conversion of the keys costs, and what is saved is the softmax and the values.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/sparse_attention/estimated_sparse_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/sparse_attention/estimated_sparse_attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = EstimatedParams;

// Returns how many key blocks query block r of sequence b and head h computes.
template <class T>
int64_t estimated_block(const Params& p, int64_t b, int64_t h, int64_t r, QueryTile& tile) {
  const int64_t queries = p.cu_q[b + 1] - p.cu_q[b], keys = p.cu_k[b + 1] - p.cu_k[b], kv_head = h / p.group();
  const int64_t from = r * p.block_q, rows = std::min(p.block_q, queries - from);
  const Params::Span span = p.span(r, queries, keys);
  const auto seen = [&](int64_t i) { return std::clamp<int64_t>(from + i + keys - queries + 1, 0, keys); };
  const auto at = [&](int64_t key) {
    return std::pair{p.k.at<const T>(p.cu_k[b] + key, kv_head), p.v.at<const T>(p.cu_k[b] + key, kv_head)};
  };
  const auto meet = [&](int64_t begin, int64_t end) {
    tile.meet<T>(0, rows, {begin * p.block_k, std::min(end * p.block_k, seen(rows - 1))}, at);
  };
  tile.reset(rows);
  for (int64_t i = 0; i < rows; ++i) {
    tile.query(i, p.q.at<const T>(p.cu_q[b] + from + i, h), p.scale);
    tile.visible(i) = {0, seen(i)};
  }
  int64_t computed = span.end - (span.certain_end - span.certain_begin);
  if (p.dense(h, keys)) {
    meet(0, span.end);
    computed = span.end;
  } else {
    meet(0, span.certain_begin);
    meet(span.certain_end, span.end);
    std::vector<float> threshold(static_cast<size_t>(rows));
    for (int64_t i = 0; i < rows; ++i) threshold[static_cast<size_t>(i)] = tile.lse(i) + std::log(p.tau[h]);
    alignas(64) float scores[QueryTile::kKeys + kRowPad];
    for (int64_t j = span.certain_begin; j < span.certain_end; ++j) {
      bool keep = false;
      const int64_t end = std::min((j + 1) * p.block_k, keys);
      for (int64_t first = j * p.block_k; first < end && !keep; first += QueryTile::kKeys) {
        const int64_t n = std::min(QueryTile::kKeys, end - first);
        for (int64_t key = 0; key < n; ++key) tile.load_key<T>(key, at(first + key).first, nullptr);
        for (int64_t i = 0; i < rows && !keep; ++i) {
          const int64_t visible = std::min(n, seen(i) - first);
          if (visible <= 0) continue;
          tile.scores(i, visible, scores);
          for (int64_t key = 0; key < visible; ++key) keep = keep || scores[key] > threshold[static_cast<size_t>(i)];
        }
      }
      if (keep) meet(j, j + 1);
      computed += keep;
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    const float lse = tile.finish(i);
    store_row(tile.output(i), p.value_dim, p.o.at<T>(p.cu_q[b] + from + i, h));
    if (p.lse.data) *p.lse.at<float>(p.cu_q[b] + from + i, h) = lse;
  }
  return computed;
}

// Work items: (sequence, head, query block), those of the first sequence first.
void estimated_items(const Params& p, int64_t begin, int64_t end) {
  static thread_local std::vector<float> memory;
  QueryTile tile(memory, p.dim, p.value_dim, p.block_q);
  tile.by_matrix(p.block_q >= QueryTile::kMatrixRows);
  int64_t item = 0;
  for (int64_t b = 0; b < p.sequences && item < end; ++b) {
    const int64_t blocks = (p.cu_q[b + 1] - p.cu_q[b] + p.block_q - 1) / p.block_q, items = blocks * p.query_heads;
    for (int64_t i = std::max<int64_t>(begin - item, 0); i < std::min(items, end - item); ++i) {
      const int64_t head = i / blocks;
      int64_t computed = 0;
      with_float_type(p.dtype,
                      [&](auto type) { computed = estimated_block<decltype(type)>(p, b, head, i % blocks, tile); });
      if (p.kept) std::atomic_ref(p.kept[head]).fetch_add(computed, std::memory_order_relaxed);
    }
    item += items;
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(estimated_items);

void estimated_sparse_attention(const EstimatedParams& p, ThreadPool& pool) {
  require_valid("estimated_sparse_attention", p);
  if (p.kept) std::fill_n(p.kept, p.query_heads, 0);
  int64_t items = 0;
  for (int64_t b = 0; b < p.sequences; ++b)
    items += (p.cu_q[b + 1] - p.cu_q[b] + p.block_q - 1) / p.block_q * p.query_heads;
  const auto run = HWY_DYNAMIC_DISPATCH(estimated_items);
  pool.parallel_for(items, 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

// Rows of a query block meet the key blocks of their CSR row, in the order of the list.
#include <algorithm>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/sparse_attention/block_sparse_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/sparse_attention/block_sparse_attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = BlockSparseParams;

// Query block r of sequence b for the `heads` query heads from `head` on, which share a KV head and a row of the mask.
template <class T>
void run_block(const Params& p, int64_t b, int64_t head, int64_t heads, int64_t r, QueryTile& tile) {
  const int64_t queries = p.cu_q[b + 1] - p.cu_q[b], keys = p.cu_k[b + 1] - p.cu_k[b], kv_head = head / p.group();
  const int64_t from = r * p.block_q, to = std::min(from + p.block_q, queries);
  const int64_t csr = p.row_of(b, head, r), rows = (to - from) * heads;
  for (int64_t first = 0; first < rows; first += QueryTile::kRows) {
    const int64_t count = std::min(QueryTile::kRows, rows - first);
    auto query = [&](int64_t i) { return from + (first + i) / heads; };  // within the sequence
    auto head_of = [&](int64_t i) { return head + (first + i) % heads; };
    tile.reset(count);
    int64_t seen = 0;
    for (int64_t i = 0; i < count; ++i) {
      tile.query(i, p.q.at<const T>(p.cu_q[b] + query(i), head_of(i)), p.scale);
      const int64_t end = p.causal ? std::clamp<int64_t>(query(i) + keys - queries + 1, 0, keys) : keys;
      tile.visible(i) = {0, end};
      seen = std::max(seen, end);
    }
    for (int64_t j = p.row_ptr[csr]; j < p.row_ptr[csr + 1] && p.col[j] >= 0; ++j) {
      const int64_t begin = p.col[j] * p.block_k;
      tile.meet<T>(0, count, {begin, std::min(begin + p.block_k, seen)}, [&](int64_t key) {
        return std::pair{p.k.at<const T>(p.cu_k[b] + key, kv_head), p.v.at<const T>(p.cu_k[b] + key, kv_head)};
      });
    }
    for (int64_t i = 0; i < count; ++i) {
      const float lse = tile.finish(i);
      store_row(tile.output(i), p.value_dim, p.o.at<T>(p.cu_q[b] + query(i), head_of(i)));
      if (p.lse.data) *p.lse.at<float>(p.cu_q[b] + query(i), head_of(i)) = lse;
    }
  }
}

// Work items: (sequence, heads that share keys and mask, query block), those of the first sequence first.
int64_t item_heads(const Params& p) { return p.mask_heads == p.query_heads ? 1 : p.group(); }
int64_t sequence_blocks(const Params& p, int64_t b) {
  return (p.cu_q[b + 1] - p.cu_q[b] + p.block_q - 1) / p.block_q;
}

void block_sparse_items(const Params& p, int64_t begin, int64_t end) {
  static thread_local std::vector<float> memory;
  QueryTile tile(memory, p.dim, p.value_dim);
  const int64_t heads = item_heads(p), units = p.query_heads / heads;
  tile.by_matrix(p.block_q * heads >= QueryTile::kMatrixRows);
  int64_t item = 0;
  for (int64_t b = 0; b < p.sequences && item < end; ++b) {
    const int64_t blocks = sequence_blocks(p, b), items = blocks * units;
    for (int64_t i = std::max<int64_t>(begin - item, 0); i < std::min(items, end - item); ++i)
      with_float_type(p.dtype, [&](auto type) {
        run_block<decltype(type)>(p, b, i / blocks * heads, heads, i % blocks, tile);
      });
    item += items;
  }
}

int64_t block_sparse_item_count(const Params& p) {
  int64_t items = 0;
  for (int64_t b = 0; b < p.sequences; ++b) items += sequence_blocks(p, b) * (p.query_heads / item_heads(p));
  return items;
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(block_sparse_items);
HWY_EXPORT(block_sparse_item_count);

void block_sparse_attention(const BlockSparseParams& p, ThreadPool& pool) {
  require_valid("block_sparse_attention", p);
  const int64_t items = HWY_DYNAMIC_DISPATCH(block_sparse_item_count)(p);
  const auto run = HWY_DYNAMIC_DISPATCH(block_sparse_items);
  pool.parallel_for(items, 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

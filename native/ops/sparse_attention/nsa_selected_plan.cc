// Which loop of the selected attention is outside: a pure function.
#include <algorithm>

#include "ops/sparse_attention/nsa.h"

namespace culebra {

SelectedPlan plan_selected(const NsaParams& p, std::string* reason) {
  constexpr int64_t kSmallGroup = 4, kChosenOften = 16;
  SelectedPlan plan;
  const int64_t group = p.group(), rows = p.dtype == DType::f32 ? 16 : 64;
  plan.blocks = p.key_rows / p.block + p.sequences;
  const bool fits = group <= rows && p.topk > 0 && p.query_rows > 0;
  const bool often = p.query_rows * p.topk >= kChosenOften * plan.blocks;
  plan.by_blocks = fits && (p.order == CUL_NSA_ORDER_KV ||
                            (p.order == CUL_NSA_ORDER_AUTO && !p.batch_invariant && group <= kSmallGroup && often));
  *reason = format("%s outside: a group of %lld, %lld queries that choose %lld of at most %lld blocks", plan.by_blocks ? "blocks" : "queries",
                   static_cast<long long>(group), static_cast<long long>(p.query_rows), static_cast<long long>(p.topk),
                   static_cast<long long>(plan.blocks));
  if (!plan.by_blocks) return plan;
  const auto row_bytes = static_cast<uint64_t>(p.topk * p.query_heads * (p.value_dim + 1)) * 4;  // of a query
  plan.chunk = std::clamp<int64_t>(static_cast<int64_t>(SelectedPlan::kChunkBytes / row_bytes), 1, p.query_rows);
  plan.tile_queries = static_cast<int32_t>(rows / group);
  plan.tiles = p.kv_heads * (plan.chunk * p.topk / plan.tile_queries + plan.blocks);
  const auto take = [&](int64_t elements) {
    const uint64_t at = plan.bytes;
    plan.bytes = (plan.bytes + static_cast<uint64_t>(elements) * 4 + 255) / 256 * 256;
    return at;
  };
  const int64_t states = plan.chunk * p.topk * p.query_heads, slots = p.kv_heads * plan.blocks;
  plan.o = take(states * p.value_dim);
  plan.lse = take(states);
  plan.counts = take(slots);
  plan.cursors = take(slots);
  plan.offsets = take(slots + 1);
  plan.tile_starts = take(slots + 1);
  plan.list = take(p.kv_heads * plan.chunk * p.topk);
  return plan;
}

}  // namespace culebra

#include "ops/gemm/quantized_gemm.h"

#include "backends/backend.h"
#include "ops/gemm/quantized_gemm_cpu.h"
#include "ops/gemm/tile/tile_plan.h"

namespace culebra {
namespace {

QuantizedGemmParams planned(const Call& call, WeightKind kind, const PackedProductTensors& t) {
  QuantizedGemmParams p{check_packed_product(call, kind, t), {}};
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::quantized_gemm_workspace(p).bytes);
    return p;
  }
  std::string reason;
  p.plan = plan_quantized_gemm(p, call.caps().multiprocessors, &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

}  // namespace

QuantizedGemmParams check_w8a16_gemm(const Call& call, const cul_w8a16_gemm_args& x) {
  return planned(call, {8}, {x.a, nullptr, x.packed, x.packed_scales, x.packed_zeros, x.perm, x.bias, x.c, x.n, x.k, x.packed_group, x.epilogue});
}
QuantizedGemmParams check_w6a16_gemm(const Call& call, const cul_w6a16_gemm_args& x) {
  return planned(call, {6}, {x.a, nullptr, x.packed, x.packed_scales, nullptr, nullptr, x.bias, x.c, x.n, x.k, x.packed_group, x.epilogue});
}
QuantizedGemmParams check_w4a16_sparse24_gemm(const Call& call, const cul_w4a16_sparse24_gemm_args& x) {
  return planned(call, {4, CUL_OPERAND_HALF, CUL_SPARSITY_2_4},
               {x.a, nullptr, x.packed, x.packed_scales, nullptr, nullptr, x.bias, x.c, x.n, x.k, x.packed_group, x.epilogue});
}
QuantizedGemmParams check_w6a8_gemm(const Call& call, const cul_w6a8_gemm_args& x) {
  return planned(call, {6, CUL_OPERAND_BYTE},
               {x.a, x.a_scale, x.packed, x.packed_scales, nullptr, nullptr, x.bias, x.c, x.n, x.k, 128, x.epilogue});
}

QuantizedGemmPlan plan_quantized_gemm(const QuantizedGemmParams& p, int multiprocessors, std::string* reason) {
  using namespace tile_plan;
  static constexpr TileChoice kTiles[] = {choice<ByteTile8>, choice<ByteTile32>, choice<ByteTile128>};
  const TileChoice& tile = p.batch_invariant ? kTiles[2] : smallest_holding(kTiles, p.m);
  const int64_t slice_rows = kSliceRowBytes / static_cast<int64_t>(size_of(p.dtype)), slices = p.k_padded / slice_rows;
  const int64_t blocks = ceil_div(p.m, tile.tokens) * ceil_div(p.n_padded, 2 * kColumnBlock);
  const Split split = p.batch_invariant ? Split{1, static_cast<int32_t>(slices)}
                                        : split_k(blocks, int64_t{multiprocessors} * tile.blocks_per_sm, slices, tile.k_warps);
  const bool paired = p.epilogue != CUL_EPILOGUE_SILU_MUL || p.n % (2 * kColumnBlock) == 0;

  QuantizedGemmPlan plan;
  plan.tile_tokens = tile.tokens;
  plan.splits = split.splits;
  plan.slices_per_split = split.slices_per_split;
  plan.gather = p.perm != nullptr;
  plan.fused = split.splits == 1 && paired;
  if (p.m == 0) return plan;
  plan.partials_offset = plan.gather ? align256(p.m * p.k_padded * 2) : 0;
  plan.workspace_bytes = plan.partials_offset + (plan.fused ? 0 : align256(p.m * p.n_padded * 4 * plan.splits));
  *reason = format("%d x 128 tiles%s: %lld blocks for %d SMs; ", plan.tile_tokens,
                   p.batch_invariant ? " (one tile for every M: batch invariant)" : "", ll(blocks), multiprocessors);
  *reason += plan.splits > 1 ? format("k in %d splits of %lld rows to fill them", plan.splits, ll(plan.slices_per_split * slice_rows))
                             : std::string("k in one piece");
  if (!plan.fused) *reason += paired ? "; a second kernel adds the splits and finishes c"
                                     : "; a second kernel finishes c: the halves of N for silu_mul are not whole blocks of 64 columns";
  if (plan.gather) *reason += "; a's columns are permuted first (act-order)";
  return plan;
}

}  // namespace culebra

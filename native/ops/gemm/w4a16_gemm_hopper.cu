#include "ops/gemm/hopper/hopper_int4.cuh"
#include "ops/gemm/w4a16_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

template <class T>
void w4a16_hopper(const W4A16GemmParams& p, const Output& output, float* partials, NativeStream stream) {
  const W4A16Plan& plan = p.plan;
  const bool halves = !partials && output.activation == Activation::silu_mul;
  HopperInt4<T> weights{};
  weights.packed = p.packed;
  weights.scales = static_cast<const uint16_t*>(p.scales);
  weights.zeros = p.zeros;
  weights.n_padded = p.n_padded;
  weights.k_padded = p.k_padded;
  weights.column_blocks = p.n_padded / kColumnBlock;
  weights.pair_blocks = halves ? p.n / 2 / kColumnBlock : 0;
  weights.group_shift = group_shift(p);
  weights.scales_bf16 = p.scale_dtype == DType::bf16;

  HopperProblem problem{};
  problem.tokens = row_map(p.a, p.lda, p.m, p.k, plan.tile_tokens);
  problem.m = p.m;
  problem.token_tiles = static_cast<int32_t>((p.m + plan.tile_tokens - 1) / plan.tile_tokens);
  problem.column_tiles = static_cast<int32_t>(halves ? (weights.pair_blocks + 1) / 2 : (weights.column_blocks + 3) / 4);
  problem.slices = static_cast<int32_t>(p.k_padded / kSliceRows);
  problem.slices_per_split = plan.slices_per_split;
  problem.partials = partials;
  problem.partial_width = p.n_padded;
  problem.output = output;
  weights.read_once = problem.token_tiles == 1;
  switch (plan.tile_tokens) {
    case HopperInt4Tile8::kTokens: launch_hopper<HopperInt4Tile8>(problem, weights, plan.splits, stream); break;
    case HopperInt4Tile16::kTokens: launch_hopper<HopperInt4Tile16>(problem, weights, plan.splits, stream); break;
    case HopperInt4Tile32::kTokens: launch_hopper<HopperInt4Tile32>(problem, weights, plan.splits, stream); break;
    case HopperInt4Tile64::kTokens: launch_hopper<HopperInt4Tile64>(problem, weights, plan.splits, stream); break;
    default: launch_hopper<HopperInt4Tile128>(problem, weights, plan.splits, stream); break;
  }
}

template void w4a16_hopper<half_t>(const W4A16GemmParams&, const Output&, float*, NativeStream);
template void w4a16_hopper<bfloat16_t>(const W4A16GemmParams&, const Output&, float*, NativeStream);

}  // namespace culebra::CUL_DEVICE_NS

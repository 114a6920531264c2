#include "ops/gemm/w4a8_gemm.h"

#include "ops/gemm/tile/align_rows.cuh"
#include "ops/gemm/hopper/hopper_int4_f8.cuh"

namespace culebra::CUL_DEVICE_NS {

void w4a8_gemm(const W4A8GemmParams& p, NativeStream stream) {
  if (p.m == 0) return;
  const F8Plan& plan = p.plan;
  const bool gated = p.epilogue == CUL_EPILOGUE_SILU_MUL, halves = gated && plan.fused;
  HopperInt4F8 weights{};
  weights.packed = p.packed;
  weights.scales = p.scales;
  weights.a_scale = p.a_scale;
  weights.channel_scale = p.channel_scale;
  weights.n_padded = p.n_padded;
  weights.k_padded = p.k_padded;
  weights.m = p.m;
  weights.n = p.n;
  weights.column_blocks = p.n_padded / kColumnBlock;
  weights.pair_blocks = halves ? p.n / 2 / kColumnBlock : 0;

  const uint8_t* a = p.a;
  int64_t lda = p.lda, k = p.k;
  if (plan.copies_a) {
    k = lda = aligned_row(p.k);
    a = align_rows(p.a, p.lda, p.m, p.k, static_cast<uint8_t*>(p.workspace), stream);
  }
  HopperProblem problem{};
  problem.tokens = byte_row_map(a, lda, p.m, k, plan.tile_tokens);
  problem.m = p.m;
  problem.token_tiles = static_cast<int32_t>((p.m + plan.tile_tokens - 1) / plan.tile_tokens);
  problem.column_tiles = static_cast<int32_t>(halves ? (weights.pair_blocks + 1) / 2 : (weights.column_blocks + 3) / 4);
  problem.slices = static_cast<int32_t>(p.k_padded / kW4A8Group);
  problem.slices_per_split = plan.slices_per_split;
  problem.output = {p.c,     p.ldc, p.m, p.n, nullptr, p.dtype, gated ? Activation::silu_mul : Activation::none,
                    p.ldc % 8 == 0 || p.m == 1};
  if (!plan.fused) {
    problem.partials = reinterpret_cast<float*>(static_cast<char*>(p.workspace) + plan.sums_offset);
    problem.partial_width = p.n_padded;
  }
  weights.read_once = problem.token_tiles == 1;
  switch (plan.tile_tokens) {
    case HopperInt4F8Tile8::kTokens: launch_hopper<HopperInt4F8Tile8>(problem, weights, plan.splits, stream); break;
    case HopperInt4F8Tile32::kTokens: launch_hopper<HopperInt4F8Tile32>(problem, weights, plan.splits, stream); break;
    case HopperInt4F8Tile64::kTokens: launch_hopper<HopperInt4F8Tile64>(problem, weights, plan.splits, stream); break;
    default: launch_hopper<HopperInt4F8Tile128>(problem, weights, plan.splits, stream); break;
  }
  if (!plan.fused) sum_splits<half_t>(problem.output, problem.partials, problem.partial_width, 1, stream);  // there is no bias to have a type
}

}  // namespace culebra::CUL_DEVICE_NS

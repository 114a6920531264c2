#include "ops/gemm/gemm.cuh"
#include "ops/gemm/hopper/hopper_half.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

template <class Tile, class T>
void multiply(const GemmParams& p, const Output& output, NativeStream stream) {
  using Weights = HopperHalf<T, Tile::kColumnGroups>;
  HopperProblem problem{};
  problem.tokens = row_map(p.a, p.lda, p.m, p.k, Tile::kTokens);
  problem.m = p.m;
  problem.token_tiles = static_cast<int32_t>((p.m + Tile::kTokens - 1) / Tile::kTokens);
  problem.column_tiles = static_cast<int32_t>((p.n + Weights::kColumns - 1) / Weights::kColumns);
  problem.slices = static_cast<int32_t>((p.k + kSliceRows - 1) / kSliceRows);
  problem.slices_per_split = p.plan.slices_per_split;
  problem.output = output;
  const Weights weights{row_map(p.b, p.ldb, p.n, p.k, Weights::kColumns), problem.token_tiles == 1};
  launch_hopper<Tile>(problem, weights, p.plan.splits, stream);
}

}  // namespace

template <class T>
void gemm_hopper(const GemmParams& p, const Output& output, NativeStream stream) {
  switch (p.plan.tile_tokens) {
    case HopperHalfTile16::kTokens: multiply<HopperHalfTile16, T>(p, output, stream); break;
    case HopperHalfTile128::kTokens: multiply<HopperHalfTile128, T>(p, output, stream); break;
    default: multiply<HopperHalfTile256, T>(p, output, stream); break;
  }
}

template void gemm_hopper<half_t>(const GemmParams&, const Output&, NativeStream);
template void gemm_hopper<bfloat16_t>(const GemmParams&, const Output&, NativeStream);

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/gemm/fp8_gemm.h"

#include "ops/gemm/tile/align_rows.cuh"
#include "ops/gemm/hopper/hopper_f8.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

template <class Tile, class Weights>
void multiply(const Fp8GemmParams& p, const uint8_t* a, int64_t lda, const uint8_t* b, int64_t ldb, NativeStream stream) {
  HopperProblem problem{};
  problem.tokens = byte_row_map(a, lda, p.m, p.k, Tile::kTokens);
  problem.m = p.m;
  problem.token_tiles = static_cast<int32_t>((p.m + Tile::kTokens - 1) / Tile::kTokens);
  problem.column_tiles = static_cast<int32_t>((p.n + Weights::kColumns - 1) / Weights::kColumns);
  problem.slices = static_cast<int32_t>((p.k + kFp8Block - 1) / kFp8Block);
  problem.slices_per_split = p.plan.slices_per_split;
  const int64_t element = static_cast<int64_t>(size_of(p.dtype));
  problem.output = {p.c, p.ldc, p.m, p.n, p.bias, p.dtype, Activation::none, p.ldc * element % 16 == 0 || p.m == 1};
  Weights weights{};
  weights.rows = byte_row_map(b, ldb, p.n, p.k, Weights::kColumns);
  weights.scales = {p.a_scale, p.b_scale, p.a_scale_row, p.b_scale_row, p.m, p.n, p.scaling == CUL_FP8_SCALING_BLOCK128, problem.slices};
  weights.read_once = problem.token_tiles == 1;
  launch_hopper<Tile>(problem, weights, p.plan.splits, stream);
}

}  // namespace

void fp8_gemm(const Fp8GemmParams& p, NativeStream stream) {
  if (p.m == 0 || p.n == 0) return;
  const uint8_t *a = p.a, *b = p.b;
  int64_t lda = p.lda, ldb = p.ldb;
  if (p.plan.copies_a) a = align_rows(p.a, lda, p.m, p.k, static_cast<uint8_t*>(p.workspace), stream), lda = p.k;
  if (p.plan.copies_b) b = align_rows(p.b, ldb, p.n, p.k, static_cast<uint8_t*>(p.workspace) + p.plan.b_offset, stream), ldb = p.k;
  switch (p.plan.tile_tokens) {
    case HopperF8Tile16::kTokens: multiply<HopperF8Tile16, HopperF8Columns>(p, a, lda, b, ldb, stream); break;
    case HopperF8Tile64::kTokens: multiply<HopperF8Tile64, HopperF8Columns>(p, a, lda, b, ldb, stream); break;
    case HopperF8Tile128::kTokens: multiply<HopperF8Tile128, HopperF8Rows>(p, a, lda, b, ldb, stream); break;
    default: multiply<HopperF8Tile256, HopperF8Rows>(p, a, lda, b, ldb, stream); break;
  }
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/gemm/gemm.cuh"

#include "ops/gemm/tile/f32_tile.cuh"
#include "ops/gemm/tile/half_weights.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr Activation activation_of(int32_t act) {
  return act == CUL_ACT_SILU ? Activation::silu : act == CUL_ACT_GELU ? Activation::gelu : Activation::none;
}

Output output_of(const GemmParams& p) {
  return {p.c, p.ldc, p.m, p.n, p.bias, p.out_dtype, activation_of(p.act), p.ldc % 8 == 0 || p.m == 1};
}

// Computes: c = act(a b^T + bias) for f32 operands.
// Shapes:   a [m, k], b [n, k], c [m, n]; any m, n, k.
// Layouts:  row-major, any row strides.
// Tiles:    64 x 64 of c per block, 16 k at a time; 4 x 4 per thread, rows and columns 16 apart.
// Shared:   two tiles [16 k][64 + 4], so that a warp's reads of a row are one broadcast and one contiguous access.
// Order:    k ascending, one FMA chain per element; independent of m and n.
// Numerics: f32 FMA, no TF32.
// Needs:    sm_80. Limit: 2 m n k operations of the FMA pipes.
// Source:   register-blocked outer products (f32_tile.cuh).
__global__ void __launch_bounds__(kF32Threads) gemm_f32(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t k, Output o,
                                                        int64_t row_tiles) {
  const int thread = static_cast<int>(threadIdx.x), tx = thread % 16, ty = thread / 16;
  const int64_t row0 = blockIdx.x % row_tiles * kF32Tile, column0 = blockIdx.x / row_tiles * kF32Tile;
  float sum[4][4];
  f32_tile(a, lda, o.m, b, ldb, o.n, k, row0, column0, sum);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t row = row0 + ty + 16 * i, column = column0 + tx + 16 * j;
      if (row < o.m && column < o.n)
        store_element(o, row, column, activate(sum[i][j] + bias_of<float>(o, column), o.activation));
    }
}

template <class T>
void run_half(const GemmParams& p, NativeStream stream) {
  const GemmPlan& plan = p.plan;
  if (plan.design == GemmDesign::hopper) return gemm_hopper<T>(p, output_of(p), stream);
  TileProblem problem{};
  problem.a = p.a;
  problem.lda = p.lda;
  problem.m = p.m;
  problem.k = p.k;
  problem.a_aligned = p.lda % 8 == 0 || p.m == 1;
  problem.column_blocks = (p.n + kColumnBlock - 1) / kColumnBlock;
  problem.token_tiles = static_cast<int32_t>((p.m + plan.tile_tokens - 1) / plan.tile_tokens);
  problem.column_tiles = static_cast<int32_t>((problem.column_blocks + 1) / 2);
  problem.slices = static_cast<int32_t>((p.k + kSliceRows - 1) / kSliceRows);
  problem.slices_per_split = plan.slices_per_split;
  problem.output = output_of(p);
  if (plan.splits > 1) {
    problem.partials = static_cast<float*>(p.workspace);
    problem.partial_width = problem.column_blocks * kColumnBlock;
  }
  const HalfWeights<T> weights{static_cast<const T*>(p.b), p.ldb, p.n, p.k, p.ldb % 8 == 0 || p.n == 1};
  if (plan.tile_tokens == HalfTile16::kTokens)
    launch_tiles<HalfTile16>(problem, weights, plan.splits, stream);
  else
    launch_tiles<HalfTile128>(problem, weights, plan.splits, stream);
  if (plan.splits > 1) sum_splits<T>(problem.output, problem.partials, problem.partial_width, plan.splits, stream);
}

}  // namespace

void gemm(const GemmParams& p, NativeStream stream) {
  if (p.m == 0 || p.n == 0) return;
#if !CUL_EMULATED
  if (p.plan.design == GemmDesign::library) return library_gemm(p, stream);
#endif
  if (p.dtype == DType::f16) return run_half<half_t>(p, stream);
  if (p.dtype == DType::bf16) return run_half<bfloat16_t>(p, stream);
  const int64_t rows = (p.m + kF32Tile - 1) / kF32Tile, columns = (p.n + kF32Tile - 1) / kF32Tile;
  launch(gemm_f32, dim3(static_cast<unsigned>(rows * columns)), dim3(kF32Threads), 0, stream, static_cast<const float*>(p.a), p.lda,
         static_cast<const float*>(p.b), p.ldb, p.k, output_of(p), rows);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/gemm/tile/gather_columns.cuh"
#include "ops/gemm/tile/int4_weights.cuh"
#include "ops/gemm/w4a16_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr Activation activation_of(int32_t epilogue) {
  return epilogue == CUL_EPILOGUE_SILU ? Activation::silu
         : epilogue == CUL_EPILOGUE_SILU_MUL ? Activation::silu_mul
                                             : Activation::none;
}

template <class T, bool kZeros>
void multiply(const W4A16GemmParams& p, const Output& output, float* partials, NativeStream stream) {
  const W4A16Plan& plan = p.plan;
  const bool halves = !partials && output.activation == Activation::silu_mul;
  TileProblem problem{};
  problem.a = p.a;
  problem.lda = p.lda;
  problem.m = p.m;
  problem.k = p.k;
  problem.a_aligned = p.lda % 8 == 0 || p.m == 1;
  problem.column_blocks = p.n_padded / kColumnBlock;
  problem.pair_blocks = halves ? p.n / 2 / kColumnBlock : 0;
  problem.token_tiles = static_cast<int32_t>((p.m + plan.tile_tokens - 1) / plan.tile_tokens);
  problem.column_tiles = static_cast<int32_t>((problem.column_blocks + 1) / 2);
  problem.slices = static_cast<int32_t>(p.k_padded / kSliceRows);
  problem.slices_per_split = plan.slices_per_split;
  problem.partials = partials;
  problem.partial_width = p.n_padded;
  problem.output = output;
  const Int4Weights<T, kZeros> weights{p.packed, static_cast<const uint16_t*>(p.scales), p.zeros, p.n_padded, p.k_padded, group_shift(p),
                                       p.scale_dtype == DType::bf16};
  switch (plan.tile_tokens) {
    case Int4Tile8::kTokens: launch_tiles<Int4Tile8>(problem, weights, plan.splits, stream); break;
    case Int4Tile16::kTokens: launch_tiles<Int4Tile16>(problem, weights, plan.splits, stream); break;
    case Int4Tile32::kTokens: launch_tiles<Int4Tile32>(problem, weights, plan.splits, stream); break;
    case Int4Tile64::kTokens: launch_tiles<Int4Tile64>(problem, weights, plan.splits, stream); break;
    default: launch_tiles<Int4Tile128>(problem, weights, plan.splits, stream); break;
  }
}

// The design of the plan, on `a` in packed order; then what it left to do.
template <class T>
void run(const W4A16GemmParams& p, NativeStream stream) {
  const W4A16Plan& plan = p.plan;
  const Output output{p.c, p.ldc, p.m, p.n, p.bias, p.dtype, activation_of(p.epilogue), p.ldc % 8 == 0 || p.m == 1};
  float* const partials = plan.fused ? nullptr : reinterpret_cast<float*>(static_cast<char*>(p.workspace) + plan.partials_offset);
  if (plan.design == GemmDesign::hopper)
    w4a16_hopper<T>(p, output, partials, stream);
  else
    p.zeros ? multiply<T, true>(p, output, partials, stream) : multiply<T, false>(p, output, partials, stream);
  if (partials) sum_splits<T>(output, partials, p.n_padded, plan.partial_sums, stream);
}

}  // namespace

void w4a16_gemm(const W4A16GemmParams& call, NativeStream stream) {
  W4A16GemmParams p = call;
  if (p.m == 0) return;
  if (p.plan.gather) {
    gather_columns(p.a, p.lda, p.perm, p.workspace, p.m, p.k_padded, stream);
    p.a = p.workspace;
    p.lda = p.k = p.k_padded;
  }
  p.dtype == DType::f16 ? run<half_t>(p, stream) : run<bfloat16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/gemm/int4_weights.cuh"
#include "ops/gemm/w4a16_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kGatherThreads = 256;

// Computes: out[m][j] = a[m][perm[j]], 0 where perm[j] < 0.
// Shapes:   a [m, k], perm [k_padded], out [m, k_padded]; k_padded a multiple of 64.
// Layouts:  row-major; elements of 16 bits, moved as they are.
// Tiles:    8 columns of one row per thread, one 16-byte store; grid-stride.
// Shared:   none.
// Order:    none: a copy.
// Numerics: exact.
// Needs:    sm_80. Limit: 2 m (k + k_padded) bytes.
// Source:   act-order (GPTQ): a gather before the product reads each element of a once; gathering while loading tiles would do
//           it once per column tile, two bytes at a time, inside the pipeline.
__global__ void __launch_bounds__(kGatherThreads)
    gather_columns(const uint16_t* a, int64_t lda, const int32_t* perm, uint16_t* out, int64_t m, int64_t k_padded) {
  const int64_t chunks = k_padded / 8, step = static_cast<int64_t>(gridDim.x) * kGatherThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGatherThreads + threadIdx.x; i < m * chunks; i += step) {
    const int64_t row = i / chunks, column = i % chunks * 8;
    Vector<uint16_t, 8> values;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int32_t from = perm[column + j];
      values[j] = from >= 0 ? a[row * lda + from] : uint16_t{0};
    }
    store_vector(out + row * k_padded + column, values);
  }
}

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
    const int64_t blocks = (p.m * p.k_padded / 8 + kGatherThreads - 1) / kGatherThreads;
    launch(gather_columns, dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)), dim3(kGatherThreads), 0, stream,
           static_cast<const uint16_t*>(p.a), p.lda, p.perm, static_cast<uint16_t*>(p.workspace), p.m, p.k_padded);
    p.a = p.workspace;
    p.lda = p.k = p.k_padded;
  }
  p.dtype == DType::f16 ? run<half_t>(p, stream) : run<bfloat16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

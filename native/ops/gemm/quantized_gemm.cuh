// One call of an 8- or 6-bit product: the problem of the tile kernel, the tile, and what runs before and after it.
#pragma once
#include "ops/gemm/tile/gather_columns.cuh"
#include "ops/gemm/tile/grouped_weights.cuh"
#include "ops/gemm/quantized_gemm.h"

namespace culebra::CUL_DEVICE_NS {

inline PackedSource packed_source(const QuantizedGemmParams& p) {
  int32_t shift = 31;  // one group
  for (int s = 5; s <= 7; ++s)
    if (p.group == int64_t{1} << s) shift = s;
  return {p.packed, p.scales, p.zeros, p.n_padded, p.k_padded * static_cast<int64_t>(size_of(p.dtype)) / kSliceRowBytes, shift, p.scale_dtype};
}

// Weights: a policy of the tile kernel; its Element is the type of a.
template <class Weights>
void run_quantized(const QuantizedGemmParams& p, const Weights& weights, NativeStream stream) {
  constexpr int64_t kChunk = 16 / static_cast<int64_t>(sizeof(typename Weights::Element));
  const QuantizedGemmPlan& plan = p.plan;
  TileProblem problem{};
  problem.a = p.a;
  problem.lda = p.lda;
  problem.m = p.m;
  problem.k = p.k;
  problem.a_aligned = p.lda % kChunk == 0 || p.m == 1;
  if (plan.gather) {
    gather_columns(p.a, p.lda, p.perm, p.workspace, p.m, p.k_padded, stream);
    problem.a = p.workspace;
    problem.lda = problem.k = p.k_padded;
    problem.a_aligned = 1;
  }
  const bool gated = p.epilogue == CUL_EPILOGUE_SILU_MUL;
  problem.column_blocks = p.n_padded / kColumnBlock;
  problem.pair_blocks = gated && plan.fused ? p.n / 2 / kColumnBlock : 0;
  problem.token_tiles = static_cast<int32_t>((p.m + plan.tile_tokens - 1) / plan.tile_tokens);
  problem.column_tiles = static_cast<int32_t>((problem.column_blocks + 1) / 2);
  problem.slices = static_cast<int32_t>(weights.slices);
  problem.slices_per_split = plan.slices_per_split;
  problem.output = {p.c, p.ldc, p.m, p.n, p.bias, p.out_dtype,
                    gated                               ? Activation::silu_mul
                    : p.epilogue == CUL_EPILOGUE_SILU ? Activation::silu
                                                      : Activation::none,
                    p.ldc % 8 == 0 || p.m == 1};
  if (!plan.fused) {
    problem.partials = reinterpret_cast<float*>(static_cast<char*>(p.workspace) + plan.partials_offset);
    problem.partial_width = p.n_padded;
  }
  switch (plan.tile_tokens) {
    case ByteTile8::kTokens: launch_tiles<ByteTile8>(problem, weights, plan.splits, stream); break;
    case ByteTile32::kTokens: launch_tiles<ByteTile32>(problem, weights, plan.splits, stream); break;
    default: launch_tiles<ByteTile128>(problem, weights, plan.splits, stream); break;
  }
  if (plan.fused) return;
  if (p.out_dtype == DType::f16)
    sum_splits<half_t>(problem.output, problem.partials, problem.partial_width, plan.splits, stream);
  else
    sum_splits<bfloat16_t>(problem.output, problem.partials, problem.partial_width, plan.splits, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

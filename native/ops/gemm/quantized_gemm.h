// w8a16_gemm, w6a16_gemm, w6a8_gemm, w4a16_sparse24_gemm: c = epilogue(a w^T + bias), w 8-, 6- or 2:4 sparse 4-bit in the layout of the stream's backend. What their
// checks make of a call.
#pragma once
#include <string>

#include "abi/op.h"
#include "culebra/gemm.h"

namespace culebra {

// cuda and simt: how one call is cut up.
struct QuantizedGemmPlan {
  int32_t tile_tokens = 0;       // rows of a per block: 8, 32 or 128
  int32_t splits = 1;            // blocks that share the k of one output tile; > 1: f32 partial sums in the workspace
  int32_t slices_per_split = 0;  // k slices of 128 bytes of a per split
  bool gather = false;           // a's columns are permuted into the workspace first (act-order)
  bool fused = true;             // the kernel applies bias and epilogue itself; otherwise a second one does, over the partial sums
  uint64_t partials_offset = 0;  // bytes into the workspace; the gathered a is at 0
  uint64_t workspace_bytes = 0;
};

struct QuantizedGemmParams {
  const void* a;  // [m, k], row stride lda, of `dtype`: f16, bf16 or i8
  int64_t lda;
  const float* a_scale;   // [m] with i8, else null
  const uint8_t* packed;  // packed_layouts.h, n_padded x k_padded
  const void* scales;     // [groups, n_padded] of `scale_dtype`; f32: [groups, ceil(n_padded / 128)]
  const uint8_t* zeros;   // [groups, n_padded]; null: 2^(bits-1)
  const int32_t* perm;    // [k_padded] column of a for each packed row, -1: none; null: in order
  const void* bias;       // [n] of c's type, or null
  void* c;                // [m, n] or, silu_mul, [m, n / 2]; row stride ldc, of `out_dtype`
  int64_t ldc;
  int64_t m, n, k, n_padded, k_padded;
  int64_t group;   // rows per packed group; k_padded for one
  int64_t groups;  // k_padded / group
  int32_t bits;
  bool floats;  // 8 bits: f8e4m3
  DType dtype, out_dtype, scale_dtype;
  int32_t epilogue;      // CUL_EPILOGUE_*
  bool batch_invariant;  // a row's bits do not depend on m
  void* workspace;
  QuantizedGemmPlan plan;
};

QuantizedGemmParams check_w8a16_gemm(const Call& call, const cul_w8a16_gemm_args& args);
QuantizedGemmParams check_w6a16_gemm(const Call& call, const cul_w6a16_gemm_args& args);
QuantizedGemmParams check_w6a8_gemm(const Call& call, const cul_w6a8_gemm_args& args);
QuantizedGemmParams check_w4a16_sparse24_gemm(const Call& call, const cul_w4a16_sparse24_gemm_args& args);

// Of the shapes, types and flags in p; reason: what was chosen and why.
QuantizedGemmPlan plan_quantized_gemm(const QuantizedGemmParams& p, int multiprocessors, std::string* reason);

CUL_DECLARE_COLUMNS(w4a16_sparse24_gemm, QuantizedGemmParams)
CUL_DECLARE_COLUMNS(w8a16_gemm, QuantizedGemmParams)
CUL_DECLARE_COLUMNS(w6a16_gemm, QuantizedGemmParams)
CUL_DECLARE_COLUMNS(w6a8_gemm, QuantizedGemmParams)

}  // namespace culebra

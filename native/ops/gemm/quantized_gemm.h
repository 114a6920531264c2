// w8a16_gemm, w6a16_gemm, w6a8_gemm, w4a16_sparse24_gemm: c = epilogue(a w^T + bias), w 8-, 6- or 2:4 sparse 4-bit in the layout of the stream's backend. What their
// checks make of a call.
#pragma once
#include <string>

#include "abi/op.h"
#include "ops/gemm/packed_product.h"

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

struct QuantizedGemmParams : PackedProduct {
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

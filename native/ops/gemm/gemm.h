// gemm: c = act(a b^T + bias), dense. What check makes of a call.
#pragma once
#include <string>

#include "abi/op.h"
#include "culebra/gemm.h"
#include "ops/gemm/gemm_design.h"

namespace culebra {

// cuda and simt; half operands only (f32 has one tile and no split).
struct GemmPlan {
  GemmDesign design = GemmDesign::marlin;
  int32_t tile_tokens = 0;  // rows of a per block
  int32_t splits = 1;       // blocks that share the k of one output tile; hopper: of a cluster, otherwise through the workspace
  int32_t slices_per_split = 0;
  uint64_t workspace_bytes = 0;
  int32_t device = 0;          // library: whose handle, and which algorithm
  uint64_t algorithm[8] = {};
};

struct GemmParams {
  const void* a;  // [m, k], row stride lda, of `dtype`
  int64_t lda;
  const void* b;  // [n, k], row stride ldb, of `dtype`
  int64_t ldb;
  const void* bias;  // [n] of `dtype`, or null
  void* c;           // [m, n], row stride ldc, of `out_dtype`
  int64_t ldc;
  int64_t m, n, k;
  DType dtype, out_dtype;
  int32_t act;           // CUL_ACT_*
  bool batch_invariant;  // a row's bits do not depend on m
  void* workspace;
  GemmPlan plan;
};

GemmParams check_gemm(const Call& call, const cul_gemm_args& args);

// Of a call without plan and workspace. reason: what was chosen and why.
GemmPlan plan_gemm(const GemmParams& p, const DeviceCaps& caps, std::string* reason);
// Why this call is not the library's, wherever that is; null where it is.
const char* not_for_library(const GemmParams& p);

CUL_DECLARE_COLUMNS(gemm, GemmParams)
namespace cuda {
void library_gemm(const GemmParams& params, CUstream_st* stream);
}

}  // namespace culebra

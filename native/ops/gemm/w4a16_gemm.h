// w4a16_gemm: c = epilogue(a w^T + bias), w int4 in the layout of the stream's backend. What check makes of a call.
#pragma once
#include <string>

#include "abi/op.h"
#include "ops/gemm/gemm_design.h"
#include "ops/gemm/packed_product.h"

namespace culebra {

// cuda and simt: how one call is cut up (gemm_plan.cc); a pure function of the call's shapes and the device.
struct W4A16Plan {
  GemmDesign design = GemmDesign::marlin;
  int32_t tile_tokens = 0;   // rows of a per block: 8, 16, 32, 64 or 128
  int32_t splits = 1;        // blocks that share the k of one output tile; hopper: the blocks of a cluster
  int32_t slices_per_split = 0;  // k slices of 64 rows per split
  int32_t gather = 0;        // 1: a's columns are permuted into the workspace first (act-order)
  int32_t fused = 1;         // 1: the kernel applies bias and epilogue itself; 0: a second kernel does, over the partial sums
  int32_t partial_sums = 1;  // of every element, when not fused
  uint64_t partials_offset = 0;  // bytes into the workspace; the gathered a is at 0
  uint64_t workspace_bytes = 0;
};

struct W4A16GemmParams : PackedProduct {
  W4A16Plan plan;
};

W4A16GemmParams check_w4a16_gemm(const Call& call, const cul_w4a16_gemm_args& args);

// Of a call without plan and workspace. reason: what was chosen and why.
W4A16Plan plan_w4a16_gemm(const W4A16GemmParams& p, const DeviceCaps& caps, std::string* reason);

CUL_DECLARE_COLUMNS(w4a16_gemm, W4A16GemmParams)

}  // namespace culebra

// fp8_gemm: c = (a a_scale)(b b_scale)^T + bias, a and b f8e4m3. What check makes of a call.
#pragma once
#include <string>

#include "abi/op.h"
#include "culebra/gemm.h"
#include "ops/gemm/hopper/hopper_f8.h"

namespace culebra {

struct Fp8GemmParams {
  const uint8_t* a;  // [m, k]
  int64_t lda;
  const uint8_t* b;  // [n, k]
  int64_t ldb;
  // Element (row, block of 128 k) of a_scale, (block of 128 rows, block of 128 k) of b_scale; strides of 0 where one value serves all.
  const float* a_scale;
  const float* b_scale;
  int64_t a_scale_row, b_scale_row;
  int32_t scaling;   // CUL_FP8_SCALING_*
  const void* bias;  // [n] of `dtype`, or null
  void* c;           // [m, n] of `dtype`
  int64_t ldc;
  int64_t m, n, k;
  DType dtype;
  void* workspace;
  F8Plan plan;
};

inline constexpr int64_t kFp8Block = 128;  // of k (and of b's rows) with scales of their own

Fp8GemmParams check_fp8_gemm(const Call& call, const cul_fp8_gemm_args& args);

// Of a call without plan and workspace. reason: what was chosen and why.
F8Plan plan_fp8_gemm(const Fp8GemmParams& p, bool batch_invariant, const DeviceCaps& caps, std::string* reason);

CUL_DECLARE_COLUMNS(fp8_gemm, Fp8GemmParams)

}  // namespace culebra

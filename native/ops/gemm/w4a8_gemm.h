// w4a8_gemm: c = epilogue((a a_scale) w^T), w = q group_scale channel_scale, a f8e4m3, q int4. What check makes of a call.
#pragma once
#include <string>

#include "abi/op.h"
#include "culebra/gemm.h"
#include "ops/gemm/hopper/hopper_f8.h"

namespace culebra {

struct W4A8GemmParams {
  const uint8_t* a;  // f8e4m3 [m, k]
  int64_t lda;
  const float* a_scale;  // [m]
  const uint8_t* packed;  // 4 bits for byte operands (packed_layouts.h), n_padded x k_padded
  const uint8_t* scales;  // f8e4m3 [k_padded / 128, n_padded]
  const float* channel_scale;  // [n]
  void* c;  // [m, n] or, silu_mul, [m, n / 2], of `dtype`
  int64_t ldc;
  int64_t m, n, k, n_padded, k_padded;
  DType dtype;
  int32_t epilogue;  // CUL_EPILOGUE_NONE or CUL_EPILOGUE_SILU_MUL
  void* workspace;
  F8Plan plan;
};

inline constexpr int64_t kW4A8Group = 128;

W4A8GemmParams check_w4a8_gemm(const Call& call, const cul_w4a8_gemm_args& args);

// Of a call without plan and workspace. reason: what was chosen and why.
F8Plan plan_w4a8_gemm(const W4A8GemmParams& p, bool batch_invariant, const DeviceCaps& caps, std::string* reason);

CUL_DECLARE_COLUMNS(w4a8_gemm, W4A8GemmParams)

}  // namespace culebra

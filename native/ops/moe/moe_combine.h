// moe_combine: its plan and its columns.
#pragma once
#include "ops/moe/moe_permute.h"

namespace culebra {

// An entry of inverse: a slot that moe_dispatch had no room for.
inline constexpr int32_t kNoRoom = -2;

struct MoeCombineParams {
  DType dtype = DType::bf16;
  bool aligned = false;        // every row begins at a multiple of 16 bytes
  const void* rows = nullptr;  // [row_count, D]
  int64_t rows_stride = 0, row_count = 0;
  const int32_t* inverse = nullptr;
  const float* weights = nullptr;  // [T,k]
  int64_t weights_stride = 0;
  void* y = nullptr;  // [T,D]
  int64_t y_stride = 0;
  int64_t tokens = 0, width = 0, k = 0;
  bool nan_without_room = false;  // a slot that moe_dispatch had no room for makes its token NaN
  bool validate = false;

  CUL_NUMERIC int64_t slots() const { return tokens * k; }
  MoeInverse indices() const { return {inverse, slots(), row_count, nan_without_room ? kNoRoom : -1}; }
};

MoeCombineParams check_moe_combine(const Call& call, const cul_moe_combine_args& args);
CUL_DECLARE_COLUMNS(moe_combine, MoeCombineParams)

}  // namespace culebra

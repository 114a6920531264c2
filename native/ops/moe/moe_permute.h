// moe_permute: its plan and its columns.
#pragma once
#include "abi/op.h"
#include "culebra/moe.h"
#include "device/numeric.h"

namespace culebra {

struct MoePermuteParams {
  int element_bytes = 0;
  bool aligned = false;  // rows are whole 16-byte words
  const void* x = nullptr;  // [T,D]
  int64_t x_stride = 0;
  const int32_t* inverse = nullptr;
  void* rows = nullptr;  // [T k, D]
  int64_t rows_stride = 0, row_count = 0;
  int64_t tokens = 0, width = 0, k = 0;
  bool validate = false;

  CUL_NUMERIC int64_t slots() const { return tokens * k; }
};

MoePermuteParams check_moe_permute(const Call& call, const cul_moe_permute_args& args);
CUL_DECLARE_COLUMNS(moe_permute, MoePermuteParams)

// Throws DeviceError where an entry of inverse is neither a row nor one of `lowest` to -1. Reads them: call it when the op runs.
void validate_inverse(const char* op, const int32_t* inverse, int64_t slots, int64_t rows, int32_t lowest);

}  // namespace culebra

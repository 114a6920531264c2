// moe_permute: its plan and its columns.
#pragma once
#include "abi/indices.h"
#include "abi/op.h"
#include "culebra/moe.h"
#include "device/numeric.h"

namespace culebra {

// Which row a slot has (abi/indices.h).
struct MoeInverse {
  const int32_t* inverse;
  int64_t slots, rows;
  int32_t lowest;  // -1, or what else means that it has none

  int64_t index_items() const { return slots; }
  CUL_NUMERIC bool valid(int64_t slot) const { return inverse[slot] >= lowest && inverse[slot] < rows; }
  std::string invalid_text(int64_t slot) const;
};

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
  MoeInverse indices() const { return {inverse, slots(), row_count, -1}; }
};

MoePermuteParams check_moe_permute(const Call& call, const cul_moe_permute_args& args);
CUL_DECLARE_COLUMNS(moe_permute, MoePermuteParams)

}  // namespace culebra

// block_sparse_attention: its plan and its columns.
#pragma once
#include "culebra/sparse_attention.h"
#include "ops/sparse_attention/packed.h"

namespace culebra {

struct BlockSparseParams : PackedHeads {
  const int64_t* row_ptr = nullptr;  // [sequences * mask_heads * mask_rows + 1]
  const int32_t* col = nullptr;
  int64_t col_count = 0;
  int64_t block_q = 0, block_k = 0;
  int64_t mask_heads = 1, mask_rows = 0;  // Hm, Mb
  bool causal = false;
  bool validate = false;

  // The CSR row of query block r of query head h in sequence b.
  CUL_NUMERIC int64_t row_of(int64_t b, int64_t h, int64_t r) const {
    return (b * mask_heads + h * mask_heads / query_heads) * mask_rows + r;
  }
  // Throws DeviceError where the index tensors would lead outside the others. Reads them: call it when the op runs.
  void require_valid() const;
};

BlockSparseParams check_block_sparse_attention(const Call& call, const cul_block_sparse_attention_args& args);
CUL_DECLARE_COLUMNS(block_sparse_attention, BlockSparseParams)

}  // namespace culebra

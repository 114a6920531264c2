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
  bool hopper = false;  // by the loop for compute capability 9.0

  // Query heads that share a KV head and a row of the mask.
  int64_t shared_heads() const { return mask_heads == query_heads ? 1 : group(); }
  // The CSR row of query block r of query head h in sequence b.
  CUL_NUMERIC int64_t row_of(int64_t b, int64_t h, int64_t r) const {
    return (b * mask_heads + h * mask_heads / query_heads) * mask_rows + r;
  }
  // Whether row i of the mask is one of a sequence with `blocks` key blocks.
  CUL_NUMERIC bool row_valid(int64_t i, int64_t blocks) const {
    if (row_ptr[i] < 0 || row_ptr[i + 1] < row_ptr[i] || row_ptr[i + 1] > col_count) return false;
    for (int64_t j = row_ptr[i]; j < row_ptr[i + 1]; ++j) {
      if (col[j] < -1 || col[j] >= blocks) return false;
      if (j > row_ptr[i] && col[j] != -1 && (col[j - 1] < 0 || col[j] <= col[j - 1])) return false;
    }
    return true;
  }
  // Sequences (abi/indices.h).
  int64_t index_items() const { return sequences; }
  CUL_NUMERIC bool valid(int64_t b) const {
    if (!valid_starts(cu_q, b, query_rows) || !valid_starts(cu_k, b, key_rows)) return false;
    if (mask_rows * block_q < cu_q[b + 1] - cu_q[b]) return false;
    const int64_t blocks = (cu_k[b + 1] - cu_k[b] + block_k - 1) / block_k, rows = mask_heads * mask_rows;
    for (int64_t i = b * rows; i < (b + 1) * rows; ++i)
      if (!row_valid(i, blocks)) return false;
    return true;
  }
  std::string invalid_text(int64_t b) const;
};

BlockSparseParams check_block_sparse_attention(const Call& call, const cul_block_sparse_attention_args& args);
CUL_DECLARE_COLUMNS(block_sparse_attention, BlockSparseParams)

}  // namespace culebra

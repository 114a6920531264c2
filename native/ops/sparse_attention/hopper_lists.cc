#include "ops/sparse_attention/hopper_lists.h"

#include <algorithm>

namespace culebra {

ListShape list_shape(const PackedHeads& p, int64_t block_q, int64_t block_k) {
  return {p.dtype, p.dim, p.value_dim, block_q, block_k, p.query_rows, p.key_rows, p.query_heads, p.kv_heads, p.q, p.k, p.v, p.aligned, p.scale};
}

const char* not_hopper_lists(const ListShape& s, const DeviceCaps& caps) {
  if (s.dtype == DType::f32) return "f32 uses no tensor cores";
  if (caps.compute_major != 9) return "compute capability below 9.0, or above";
  if (!s.aligned) return "rows are not aligned to 16 bytes";
  if (s.scale <= 0) return "scale is not positive";
  if (std::max(s.dim, s.value_dim) > 128) return "more than 128 channels";
  // Boxes of the copy engine fill a step, and a swizzle's eight rows, exactly.
  if (s.block_k < 16 || 128 % s.block_k) return "key blocks are not 16, 32, 64 or 128";
  // Rows that are not there are computed all the same; the other loop fills its tiles with the heads that share a list.
  if (s.block_q < 64) return "query blocks below 64";
  if (s.query_rows == 0 || s.key_rows == 0) return "no rows";
  // Copies of the engine step over positive strides.
  const auto steps = [](const TokenRows& x, int64_t rows, int64_t heads) { return (rows == 1 || x.row > 0) && (heads == 1 || x.head > 0); };
  if (!steps(s.q, s.query_rows, s.query_heads) || !steps(s.k, s.key_rows, s.kv_heads) || !steps(s.v, s.key_rows, s.kv_heads))
    return "a stride is not positive";
  return nullptr;
}

}  // namespace culebra

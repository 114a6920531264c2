// Which calls over lists of key blocks the loop for compute capability 9.0 takes.
#pragma once
#include "backends/backend.h"
#include "ops/sparse_attention/packed.h"

namespace culebra {

struct ListShape {
  DType dtype = DType::f32;
  int64_t dim = 0, value_dim = 0, block_q = 0, block_k = 0, query_rows = 0, key_rows = 0, query_heads = 1, kv_heads = 1;
  TokenRows q, k, v;
  bool aligned = false;  // every row of q, k, v and o begins and ends at a multiple of 16 bytes
  float scale = 1;
};
ListShape list_shape(const PackedHeads& p, int64_t block_q, int64_t block_k);

// Why a call is not for it; null where it is.
const char* not_hopper_lists(const ListShape& shape, const DeviceCaps& caps);

}  // namespace culebra

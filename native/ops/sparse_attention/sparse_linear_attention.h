// sparse_linear_attention: its plan and its columns.
#pragma once
#include <algorithm>
#include <cmath>

#include "abi/op.h"
#include "culebra/sparse_attention.h"
#include "device/numeric.h"

namespace culebra {

// Where things lie in the workspace. On the cpu those of one (batch, head), on a device of all of them.
struct SparseLinearPlan {
  uint64_t means_at = 0;    // f32 [2, heads, n, D]: of the blocks of q, then of k
  uint64_t classes_at = 0;  // u8 [heads, n, n], a row per query block
  uint64_t lists_at = 0;    // i32 [heads, n, critical]: critical blocks, ascending
  uint64_t states_at = 0;   // f32 [heads, n, D + 1, D]: sums over a key block of phi(k)_i v, then of phi(k)
  uint64_t sums_at = 0;     // f32 [heads, n or 1, D + 1, D]: those of a query block's linear part
  uint64_t workspace_bytes = 0;
};

struct SparseLinearParams {
  enum Class : uint8_t { kCritical = 0, kMarginal = 1, kNegligible = 2 };
  // Element (b, h, token, d) at data[b batch + h head + token row + d].
  struct Rows {
    void* data = nullptr;
    int64_t batch = 0, head = 0, row = 0;
    template <class T>
    CUL_NUMERIC T* at(int64_t b, int64_t h, int64_t token) const {
      return static_cast<T*>(data) + b * batch + h * head + token * row;
    }
  };

  DType dtype = DType::f32;
  int64_t batch = 0, heads = 0, length = 0, dim = 0, block = 64;
  int64_t blocks = 0, critical = 1, negligible = 0;  // of a query block
  Rows q, k, v, o;
  const void* proj_w = nullptr;
  int64_t proj_stride = 0;
  const void* proj_b = nullptr;
  int phi = 0, mode = 0;
  float eps = 0, scale = 1;
  bool aligned = false;
  SparseLinearPlan plan;
  void* workspace = nullptr;

  CUL_NUMERIC int64_t block_end(int64_t j) const { return (j + 1) * block < length ? (j + 1) * block : length; }
  // If the linear part of a query block has key blocks of this class.
  CUL_NUMERIC bool is_linear(uint8_t of) const {
    return mode == CUL_SLA_ALL || of == kMarginal || (mode == CUL_SLA_COMPLEMENT && of == kNegligible);
  }
  // If a query block's linear part has any block: their numbers are the same for all.
  CUL_NUMERIC bool has_linear() const {
    return mode == CUL_SLA_ALL || (mode == CUL_SLA_COMPLEMENT ? critical < blocks : critical + negligible < blocks);
  }
};

SparseLinearParams check_sparse_linear_attention(const Call& call, const cul_sparse_linear_attention_args& args);
SparseLinearPlan plan_sparse_linear_attention(const SparseLinearParams& p, bool one_head);
CUL_DECLARE_COLUMNS(sparse_linear_attention, SparseLinearParams)

}  // namespace culebra

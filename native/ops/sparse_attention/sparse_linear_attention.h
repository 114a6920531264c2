// sparse_linear_attention: its plan and its columns.
#pragma once
#include <algorithm>
#include <cmath>

#include "abi/op.h"
#include "culebra/sparse_attention.h"
#include "device/numeric.h"
#include "ops/sparse_attention/packed.h"

namespace culebra {

// Where things lie in the workspace. On the cpu those of one (batch, head). On a device means, lists and masks are all heads'; keys, states
// and sums are those of `heads_at_once` heads, one group of heads after the other: what the L2 keeps, whatever the batch is.
struct SparseLinearPlan {
  bool hopper = false;        // softmax over the critical blocks by the loop for compute capability 9.0
  bool tensor_cores = false;  // half operands of a device, D a multiple of 16 up to 128
  int parts = 1;              // bf16 numbers that a state, a sum and phi are made of on tensor cores
  int64_t heads_at_once = 1;
  uint64_t means_at = 0;    // f32 [2, heads, n, D]: of the blocks of q, then of k
  uint64_t classes_at = 0;  // cpu: u8 [n, n], a row per query block
  uint64_t lists_at = 0;    // i32 [heads, n, critical]: critical blocks, ascending
  uint64_t mask_at = 0;     // device: u32 [heads, n, words]: which key blocks are linear, by mask_bit
  uint64_t keys_at = 0;     // device: u32 [at once, n, n]: ordered scores of blocks; the states follow in the same place
  uint64_t states_at = 0;   // f32 [at once, n, D + 1, D]: sums over a key block of phi(k)_i v, then of phi(k);
                            // tensor cores: bf16 [at once, n, parts, D + 2, D]: v phi(k)_i, then sums of phi(k) as two parts
  uint64_t sums_at = 0;     // f32 [at once, n or 1, D + 1, D]: those of a query block's linear part;
                            // tensor cores: bf16 [at once, n or 1, parts, D, D]
  uint64_t norms_at = 0;    // tensor cores: f32 [at once, n or 1, 2, D]: sums of phi(k), in two parts
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
  bool aligned = false, proj_aligned = false;  // rows of q, k, v and o, and of proj_w, to 16 bytes
  SparseLinearPlan plan;
  void* workspace = nullptr;

  // Which bit of its word of the mask stands for key block j: pairs of neighbours 16 bits apart, as a register of mma has them.
  CUL_NUMERIC static int mask_bit(int64_t j) { return static_cast<int>(j % 16 / 2 + j % 32 / 16 * 8 + j % 2 * 16); }
  CUL_NUMERIC int64_t mask_words() const { return (blocks + 31) / 32; }
  // Query blocks whose sums differ.
  CUL_NUMERIC int64_t sum_rows() const { return mode == CUL_SLA_ALL ? 1 : blocks; }
  CUL_NUMERIC int64_t sum_row(int64_t head, int64_t i) const { return mode == CUL_SLA_ALL ? head : head * blocks + i; }
  // Heads of the batch as heads of one sequence; only where that is what the strides say (heads_in_line).
  TokenRows in_line(const Rows& x) const { return {x.data, x.row, heads > 1 ? x.head : x.batch}; }
  bool heads_in_line(const Rows& x) const { return batch == 1 || heads == 1 || x.batch == heads * x.head; }
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
SparseLinearPlan plan_sparse_linear_attention(const SparseLinearParams& p, bool cpu, int multiprocessors);
CUL_DECLARE_COLUMNS(sparse_linear_attention, SparseLinearParams)

}  // namespace culebra

// sparse_mlp: a gated MLP that skips the rows its gate switches off. What check makes of a call.
#pragma once
#include <string>

#include "abi/op.h"
#include "culebra/gemm.h"

namespace culebra {

inline constexpr int64_t kSparseMlpMaxRows = 4;
inline constexpr int32_t kSparseMlpSegmentRows = 2048;  // of w_up or w_down_t that a block can list in shared memory

// cuda and simt. The rows that are needed are known only on the device: blocks share whatever they find, in equal segments.
struct SparseMlpPlan {
  int32_t rows_at_once = 0;     // of x; 1: one row after the other, so that a row's bits are its own
  int32_t up_segments = 0;      // blocks that share the needed rows of w_up
  int32_t down_segments = 0;    // blocks that share those of w_down_t, per tile of columns
  int32_t column_tiles = 0;     // of 512 columns of y
  uint64_t bits_at = 0, products_at = 0, counters_at = 0, partials_at = 0;  // bytes into the workspace; h is at 0
  uint64_t workspace_bytes = 0;
};

struct SparseMlpParams {
  const void* x;  // [rows, d], row stride ldx, of `dtype` as all matrices
  int64_t ldx;
  const void *w_gate, *w_up, *w_down_t;  // [inner, d]
  int64_t ld_gate, ld_up, ld_down;
  void* y;  // [rows, d]
  int64_t ldy;
  int32_t* active;  // [rows], or null
  int64_t rows, d, inner;
  float threshold;
  DType dtype;
  bool batch_invariant;
  void* workspace;
  SparseMlpPlan plan;
};

SparseMlpParams check_sparse_mlp(const Call& call, const cul_sparse_mlp_args& args);

SparseMlpPlan plan_sparse_mlp(int64_t rows, int64_t d, int64_t inner, bool batch_invariant, int multiprocessors, std::string* reason);

CUL_DECLARE_COLUMNS(sparse_mlp, SparseMlpParams)

}  // namespace culebra

// linear_logprob: log-probabilities of target words, z = softcap(e c^T + bias) never stored. What check makes of a call.
#pragma once
#include <string>

#include "abi/op.h"
#include "culebra/gemm.h"
#include "ops/gemm/gemm_design.h"

namespace culebra {

// cuda and simt: the vocabulary is cut into ranges; a block takes one tile of tokens through one range, a tile of words at a time, and
// leaves a partial log-sum. Partials are merged in the order of the ranges.
struct LogprobPlan {
  GemmDesign design = GemmDesign::marlin;
  int32_t tile_tokens = 0;      // 16 or 128; f32: 64
  int32_t tiles_per_range = 0;  // tiles of words a block goes through
  int32_t ranges = 0;
  uint64_t workspace_bytes = 0;  // [n, ranges] of (maximum, sum)
};

struct LogprobParams {
  const void* e;  // [n, d], row stride lde, of `dtype`
  int64_t lde;
  const void* c;  // [v, d], row stride ldc, of `dtype`
  int64_t ldc;
  const void* bias;        // [v] of `dtype`, or null
  const int64_t* targets;  // [n]
  float* logprob;          // [n]
  float* lse;              // [n]
  int64_t n, v, d;
  int64_t ignore_index, vocab_start;
  float softcap;  // 0: none
  DType dtype;
  bool batch_invariant;  // a row's bits do not depend on n
  void* workspace;
  LogprobPlan plan;
};

LogprobParams check_linear_logprob(const Call& call, const cul_linear_logprob_args& args);

LogprobPlan plan_linear_logprob(const LogprobParams& p, const DeviceCaps& caps, std::string* reason);

CUL_DECLARE_COLUMNS(linear_logprob, LogprobParams)

}  // namespace culebra

// local_linear_attention: its plan and its columns. Maths: README.md.
#pragma once
#include "ops/linear_attention/recurrence.h"

namespace culebra {

struct LocalLinearAttentionParams {
  using Heads = RecurrenceParams::Heads;

  DType dtype = DType::f32;
  int64_t batch = 0, queries = 0, keys = 0;  // B, T, S
  int64_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
  Heads q, k, v, o;
  int64_t sequences = 0;              // B, or the intervals of cu_queries
  const int32_t* cu_queries = nullptr;  // both or neither
  const int32_t* cu_keys = nullptr;
  float scale = 1, ridge = 1, tol = 0;
  int32_t cg_iters = 1;
  bool validate = false;

  // Where a sequence lies: its queries are the last positions of its keys.
  struct Range {
    int64_t batch, query, queries, key, keys;
  };
  Range at(int64_t n) const {
    if (!cu_queries) return {n, 0, queries, 0, keys};
    return {0, cu_queries[n], cu_queries[n + 1] - cu_queries[n], cu_keys[n], cu_keys[n + 1] - cu_keys[n]};
  }

  // CUL_OP_VALIDATE: behind sequence n, the last, are queries of none.
  CUL_NUMERIC bool unclaimed(int64_t n) const { return validate && n + 1 == sequences && cu_queries[n + 1] != queries; }
  // Packed sequences (abi/indices.h).
  int64_t index_items() const { return cu_queries ? sequences : 0; }
  CUL_NUMERIC bool valid(int64_t n) const {
    return valid_starts(cu_queries, n, queries) && valid_starts(cu_keys, n, keys) &&
           cu_keys[n + 1] - cu_keys[n] >= cu_queries[n + 1] - cu_queries[n] && !unclaimed(n);
  }
  std::string invalid_text(int64_t n) const;
};

LocalLinearAttentionParams check_local_linear_attention(const Call& call, const cul_local_linear_attention_args& args);
CUL_DECLARE_COLUMNS(local_linear_attention, LocalLinearAttentionParams)

}  // namespace culebra

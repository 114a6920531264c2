// kv_merge: its plan and its columns.
#pragma once
#include <cmath>

#include "culebra/kv_cache.h"
#include "ops/attention/head_rows.h"

namespace culebra {

// Where things lie in a device's workspace, each [Hkv,T]: a token's flags; then by the row of the output the first token of
// its run and the end of it; then by token its distance from the pivot.
struct KvMergePlan {
  uint64_t flags_at = 0, begin_at = 0, end_at = 0, distance_at = 0, workspace_bytes = 0;
};

struct KvMergeParams {
  DType dtype = DType::f32;
  int64_t tokens = 0, heads = 0, key_dim = 0, value_dim = 0, sequences = 0;
  HeadRows k, v, mass, merged_k, merged_v, origin;  // outer 0, row = token
  const int32_t* cu_seqlens = nullptr;
  int32_t* count = nullptr;
  int64_t count_stride = 0;
  double eps = 0, protect = 0;
  bool validate = false;
  KvMergePlan plan;
  void* workspace = nullptr;

  // Of a sequence's tokens, those that stay alone.
  CUL_NUMERIC int64_t protected_of(int64_t length) const {
    return static_cast<int64_t>(protect * static_cast<double>(length));
  }
  // If two neighbours with these sums of products join: cos > eps, the cosine with a vector of zeros being 0.
  CUL_NUMERIC bool similar(float product, float a, float b) const {
    if (a == 0 || b == 0) return 0 > eps;
    return static_cast<double>(product) > eps * std::sqrt(static_cast<double>(a) * static_cast<double>(b));
  }

  // Entries of cu_seqlens (abi/indices.h).
  int64_t index_items() const { return sequences + 1; }
  CUL_NUMERIC bool valid(int64_t i) const {
    return i == 0 ? cu_seqlens[0] == 0 : cu_seqlens[i] >= cu_seqlens[i - 1] && cu_seqlens[i] <= tokens;
  }
  std::string invalid_text(int64_t i) const;
};

KvMergeParams check_kv_merge(const Call& call, const cul_kv_merge_args& args);
CUL_DECLARE_COLUMNS(kv_merge, KvMergeParams)

}  // namespace culebra

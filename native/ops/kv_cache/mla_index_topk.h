// mla_index_topk: its plan and its columns.
#pragma once
#include "culebra/kv_cache.h"
#include "device/block_divide.h"
#include "ops/attention/head_rows.h"

namespace culebra {

inline constexpr int64_t kIndexHeads = 64, kIndexDim = 128;
inline constexpr int64_t kIndexKeyBytes = kIndexDim + 4;  // the e4m3 elements, and the f32 that scales them
inline constexpr int64_t kIndexMostKeys = 4096;           // topk: what a block of a device keeps candidates for

// How a device splits a query's keys: `splits` pieces of `split_keys`, each of which leaves its topk in the workspace.
struct IndexTopkPlan {
  int64_t splits = 1, split_keys = 0;
  uint64_t keys_at = 0, positions_at = 0, counts_at = 0;  // u32, i32 [T,splits,topk], i32 [T,splits]
  uint64_t workspace_bytes = 0;
};

struct IndexTopkParams {
  int64_t tokens = 0, sequences = 0, pages = 0, page_size = 1, table_pages = 0, topk = 0;
  HeadRows q;              // outer 0, row = token
  HeadRows keys;           // outer = page, row = offset
  const float* weights = nullptr;
  int64_t weights_stride = 0;
  const int32_t* cu_q = nullptr;
  const int32_t* page_table = nullptr;
  int64_t page_table_stride = 0;
  const int32_t* kv_len = nullptr;
  int32_t* idx = nullptr;
  int64_t idx_stride = 0;
  bool slots = false, validate = false;
  IndexTopkPlan plan;
  void* workspace = nullptr;

  // The keys that a query of sequence b sees, from 0 on.
  CUL_NUMERIC int64_t visible(int64_t b, int64_t token) const {
    const int64_t length = kv_len[b], end = length - (cu_q[b + 1] - token) + 1;
    return end < 0 ? 0 : end < length ? end : length;
  }
  CUL_NUMERIC int64_t slot(int64_t b, int64_t position) const {
    const auto [page, row] = block_divide(position, page_size);
    return page_table[b * page_table_stride + page] * page_size + row;
  }

  // Entries of cu_q, then the sequences' lengths and pages (abi/indices.h).
  int64_t index_items() const { return 2 * sequences + 1; }
  CUL_NUMERIC bool valid(int64_t i) const {
    if (i <= sequences) return i == 0 ? cu_q[0] == 0 : cu_q[i] >= cu_q[i - 1] && cu_q[i] <= tokens;
    const int64_t b = i - sequences - 1;
    if (kv_len[b] < 0 || kv_len[b] > table_pages * page_size) return false;
    return valid_pages(page_table + b * page_table_stride, 0, (kv_len[b] + page_size - 1) / page_size, pages, 0);
  }
  std::string invalid_text(int64_t i) const;
};

IndexTopkPlan plan_mla_index_topk(const IndexTopkParams& p, int multiprocessors, std::string* reason);
IndexTopkParams check_mla_index_topk(const Call& call, const cul_mla_index_topk_args& args);
CUL_DECLARE_COLUMNS(mla_index_topk, IndexTopkParams)

}  // namespace culebra

// kv_select: its plan and its columns.
#pragma once
#include "culebra/kv_cache.h"
#include "ops/attention/head_rows.h"

namespace culebra {

struct KvSelectParams {
  DType dtype = DType::f32;
  int64_t sequences = 0, kv_heads = 0, group = 1, dim = 0, pages = 0, table_pages = 0;
  int64_t topk = 0, sink = 0, recent = 0;
  float theta = 0;
  HeadRows q, q_ref;             // outer 0, row = sequence; q_ref.data null: none
  HeadRows page_min, page_max;   // outer 0, row = page
  HeadRows idx, prev_idx;        // outer 0, row = sequence, head = KV head
  int64_t count_stride = 0;
  int32_t* count = nullptr;
  const int32_t* page_table = nullptr;
  int64_t page_table_stride = 0;
  const int32_t* page_count = nullptr;
  bool validate = false, aligned = false;  // aligned: rows of q and of the statistics begin at multiples of 16 bytes
  uint32_t* keys = nullptr;                // workspace [B,Hkv,maxP] on a device

  // What is chosen among n pages: the forced ones, and `free` of [begin, end).
  struct Choice {
    int64_t begin, end, free;
  };
  CUL_NUMERIC Choice choice(int64_t n) const {
    if (n <= topk) return {n, n, 0};  // all
    const int64_t begin = sink < n ? sink : n, end = n - recent > begin ? n - recent : begin;
    return {begin, end, topk - begin - (n - end)};
  }

  // A sequence's indices (abi/indices.h).
  int64_t index_items() const { return sequences; }
  CUL_NUMERIC bool valid(int64_t b) const {
    if (page_count[b] < 0 || page_count[b] > table_pages) return false;
    return valid_pages(page_table + b * page_table_stride, 0, page_count[b], pages, -1);
  }
  std::string invalid_text(int64_t b) const;
};

KvSelectParams check_kv_select(const Call& call, const cul_kv_select_args& args);
CUL_DECLARE_COLUMNS(kv_select, KvSelectParams)

}  // namespace culebra

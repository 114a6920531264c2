// bitmap_kv_attention: its plan and its columns.
#pragma once
#include "culebra/kv_cache.h"
#include "ops/attention/head_rows.h"

namespace culebra {

// How a device goes about it: tiles of query rows of a KV head (query, head of the group), and the tokens in splits.
struct BitmapAttentionPlan {
  int32_t tile_rows = 16;
  int32_t splits = 1, split_tokens = 0;  // split_tokens 0: a sequence's tokens are divided evenly
  bool partial = false;                  // results of splits go through the workspace
  uint64_t workspace_bytes = 0;
};

struct BitmapAttentionParams {
  DType dtype = DType::f32;
  int64_t sequences = 0, queries = 0, query_heads = 0, kv_heads = 0, dim = 0;
  int64_t key_keep = 0, value_keep = 0;
  int64_t pages = 0, page_size = 1, table_pages = 0, tail_rows = 0;
  HeadRows q, k_values, k_bits, v_values, v_bits, k_tail, v_tail, o, lse;  // lse.data is null where absent
  const int32_t* page_table = nullptr;
  int64_t page_table_stride = 0;
  const int32_t* kv_len = nullptr;
  const int32_t* tail_len = nullptr;
  float scale = 1;
  bool validate = false;
  bool aligned = false;  // rows of q, o and the tails are whole 16-byte pieces
  BitmapAttentionPlan plan;
  void* workspace = nullptr;

  CUL_NUMERIC int64_t group() const { return query_heads / kv_heads; }

  // A sequence's indices (abi/indices.h).
  int64_t index_items() const { return sequences; }
  CUL_NUMERIC bool valid(int64_t b) const {
    const int64_t length = kv_len[b];
    if (length < 0 || length > table_pages * page_size || tail_len[b] < 0 || tail_len[b] > tail_rows) return false;
    return valid_pages(page_table + b * page_table_stride, 0, (length + page_size - 1) / page_size, pages, 0);
  }
  std::string invalid_text(int64_t b) const;
};

BitmapAttentionPlan plan_bitmap_kv_attention(const BitmapAttentionParams& p, int64_t split_kv_tokens,
                                             bool batch_invariant, int multiprocessors, std::string* reason);
BitmapAttentionParams check_bitmap_kv_attention(const Call& call, const cul_bitmap_kv_attention_args& args);
CUL_DECLARE_COLUMNS(bitmap_kv_attention, BitmapAttentionParams)

}  // namespace culebra

// attention and paged_attention: their plan and their columns. Both are one computation; they differ in where a
// sequence's rows lie.
#pragma once
#include "abi/indices.h"
#include "abi/op.h"
#include "culebra/attention.h"

namespace culebra {

// Keys [begin, end) that a query sees.
struct KeyRange {
  int64_t begin, end;
};

// How the kernels of cuda and simt go about a call.
enum class AttentionDesign : int32_t {
  f32,       // FMAs
  tile,      // 64 query rows on the M side of mma.sync
  few_rows,  // keys on the M side, 8 or 16 rows
  hopper     // wgmma and the copy engine
};
struct AttentionPlan {
  AttentionDesign design = AttentionDesign::tile;
  int32_t dim_class = 0;   // 64, 128 or 256: what D and Dv fit in
  int32_t tile_rows = 0;   // query rows of a block
  int32_t section = 1;     // KV heads whose keys and values are used together
  int32_t splits = 1;      // of the keys; more than one, or `partial`: results go through the workspace
  int32_t split_keys = 0;  // keys of a split; 0: each sequence is divided evenly
  bool partial = false;
  uint64_t workspace_bytes = 0;
};

struct AttentionParams {
  // Element (row, head, d) at data[row row_stride + head head_stride + d]; row: a token, or a token of the page pool.
  struct Rows {
    void* data = nullptr;
    int64_t batch = 0, row = 0, head = 0;  // batch is 0 where sequences are packed
  };
  // Keys and values lie in rows (page, offset): data[page batch + offset row + head head]; packed ones are one page.
  const char* op = "";
  DType dtype = DType::f32, cache_dtype = DType::f32;
  int64_t sequences = 0, query_heads = 0, kv_heads = 0, dim = 0, value_dim = 0;
  int64_t query_rows = 0;         // Tq, or Sq
  int64_t key_rows = 0;           // Tk, or the rows that a page table's row can address
  Rows q, k, v, o, lse;           // lse.data is null where absent
  const int32_t* cu_q = nullptr;  // null: paged
  const int32_t* cu_k = nullptr;
  const int32_t* page_table = nullptr;
  int64_t page_table_stride = 0, page_size = 0, pages = 0;
  const int32_t* tokens = nullptr;  // cpu: row of the page pool of each key, instead of a page table
  int64_t tokens_stride = 0;
  const int32_t* kv_len = nullptr;
  const float* k_scale = nullptr;  // per KV head, f8 caches
  const float* v_scale = nullptr;
  const float* sink = nullptr;
  float scale = 1, softcap = 0;
  bool causal = false;
  int64_t window_left = -1, window_right = -1;
  int64_t split_kv_tokens = 0;
  bool batch_invariant = false, validate = false;
  bool aligned = false;  // every row of q, k, v and o begins and ends at a multiple of 16 bytes (f8: of 8)
  AttentionPlan plan;
  void* workspace = nullptr;

  int64_t group() const { return query_heads / kv_heads; }
  int64_t query_begin(int64_t b) const { return cu_q ? cu_q[b] : 0; }
  int64_t query_count(int64_t b) const { return cu_q ? cu_q[b + 1] - cu_q[b] : query_rows; }
  int64_t key_count(int64_t b) const { return cu_k ? cu_k[b + 1] - cu_k[b] : kv_len[b]; }
  CUL_NUMERIC KeyRange visible(int64_t row, int64_t queries, int64_t keys) const {
    const int64_t position = row + keys - queries, right = causal ? 0 : window_right;
    KeyRange r{0, keys};
    if (window_left >= 0 && position > window_left) r.begin = position - window_left;
    if (right >= 0 && position + right + 1 < keys) r.end = position + right + 1 > 0 ? position + right + 1 : 0;
    if (r.begin > r.end) r.begin = r.end;
    return r;
  }

  // Sequences (abi/indices.h). Of a page table: the pages that kv_len and the window make visible.
  int64_t index_items() const { return sequences; }
  CUL_NUMERIC bool valid(int64_t b) const {
    if (cu_q) return valid_starts(cu_q, b, query_rows) && valid_starts(cu_k, b, key_rows);
    if (kv_len[b] < 0 || kv_len[b] > key_rows) return false;
    if (query_rows == 0 || tokens) return true;
    const int64_t begin = visible(0, query_rows, kv_len[b]).begin, end = visible(query_rows - 1, query_rows, kv_len[b]).end;
    return valid_pages(page_table + b * page_table_stride, begin / page_size, (end + page_size - 1) / page_size, pages, 0);
  }
  std::string invalid_text(int64_t b) const;
};

AttentionParams check_attention(const Call& call, const cul_attention_args& args);
AttentionParams check_paged_attention(const Call& call, const cul_paged_attention_args& args);
// Of a call without plan and workspace, on a device with kernels. reason: what was chosen and why.
AttentionPlan plan_attention(const AttentionParams& p, const DeviceCaps& caps, std::string* reason);
AttentionPlan plan_paged_attention(const AttentionParams& p, const DeviceCaps& caps, std::string* reason);

CUL_DECLARE_COLUMNS(attention, AttentionParams)
CUL_DECLARE_COLUMNS(paged_attention, AttentionParams)

}  // namespace culebra

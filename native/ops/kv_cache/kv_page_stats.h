// kv_page_stats: its plan and its columns.
#pragma once
#include "culebra/kv_cache.h"
#include "ops/attention/head_rows.h"

namespace culebra {

struct PageStatsParams {
  DType dtype = DType::f32;
  int64_t sequences = 0, pages = 0, page_size = 1, heads = 0, dim = 0, table_pages = 0;
  HeadRows cache, page_min, page_max;  // statistics: outer 0, row = page
  const int32_t* page_table = nullptr;
  int64_t page_table_stride = 0;
  const int32_t* first_token = nullptr;
  const int32_t* kv_len = nullptr;
  bool validate = false, aligned = false;  // aligned: rows of cache and statistics are whole 16-byte pieces

  // A sequence's indices (abi/indices.h). Pages of -1 are passed over.
  int64_t index_items() const { return sequences; }
  CUL_NUMERIC bool valid(int64_t b) const {
    if (kv_len[b] < 0 || kv_len[b] > table_pages * page_size || first_token[b] < 0) return false;
    return valid_pages(page_table + b * page_table_stride, first_token[b] / page_size,
                       (kv_len[b] + page_size - 1) / page_size, pages, -1);
  }
  std::string invalid_text(int64_t b) const;
};

PageStatsParams check_kv_page_stats(const Call& call, const cul_kv_page_stats_args& args);
CUL_DECLARE_COLUMNS(kv_page_stats, PageStatsParams)

}  // namespace culebra

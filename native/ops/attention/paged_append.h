// paged_append: its plan and its columns.
#pragma once
#include "abi/indices.h"
#include "abi/op.h"
#include "culebra/attention.h"

namespace culebra {

struct PagedAppendParams {
  // k, v: element (t, h, d) at data[t row + h head + d]. Caches: (page, offset, h, d) at data[page page + offset row +
  // h head + d].
  struct Rows {
    void* data = nullptr;
    int64_t page = 0, row = 0, head = 0;
  };

  DType dtype = DType::f32, cache_dtype = DType::f32;
  int64_t tokens = 0, heads = 0, key_dim = 0, value_dim = 0;
  int64_t pages = 0, page_size = 1;
  Rows k, v, k_cache, v_cache;
  const int64_t* slot = nullptr;
  const float* cos = nullptr;  // [T,R/2]; null: no rotation
  const float* sin = nullptr;
  int64_t cos_stride = 0, sin_stride = 0, rotary_pairs = 0;
  const float* k_scale = nullptr;  // f8 caches
  const float* v_scale = nullptr;
  bool interleaved = false, validate = false;
  bool aligned = false;  // rows of k, v and the caches begin and end at multiples of eight elements

  // Slots (abi/indices.h).
  int64_t index_items() const { return tokens; }
  CUL_NUMERIC bool valid(int64_t token) const { return slot[token] >= -1 && slot[token] < pages * page_size; }
  std::string invalid_text(int64_t token) const;
};

PagedAppendParams check_paged_append(const Call& call, const cul_paged_append_args& args);
CUL_DECLARE_COLUMNS(paged_append, PagedAppendParams)

}  // namespace culebra

// What this family's operators share: operands of heads, and how index tensors are checked when an op runs.
#pragma once
#include <string>

#include "abi/op.h"
#include "device/numeric.h"

namespace culebra {

// Rows of channels with inner stride 1, addressed by (outer, row, head): [P,page,Hkv,D], [B,T,H,D], or [T,H,D] with outer 0.
struct HeadRows {
  void* data = nullptr;
  int64_t outer = 0, row = 0, head = 0;

  CUL_NUMERIC int64_t offset(int64_t o, int64_t r, int64_t h) const { return o * outer + r * row + h * head; }
  template <class T>
  CUL_NUMERIC T* at(int64_t o, int64_t r, int64_t h) const {
    return static_cast<T*>(data) + offset(o, r, h);
  }
};

inline HeadRows head_rows(const View& v) {
  if (v.rank == 4) return {v.data, v.stride_of(0), v.stride_of(1), v.stride_of(2)};
  return {v.data, 0, v.stride_of(0), v.rank == 3 ? v.stride_of(1) : 1};
}

inline long long ll(int64_t n) { return static_cast<long long>(n); }

// Every row of v begins at a multiple of 16 bytes (its base does).
inline bool rows_aligned(const View& v) {
  if (!v) return true;
  for (int i = 0; i + 1 < v.rank; ++i)
    if (v[i] > 1 && v.stride_of(i) * static_cast<int64_t>(size_of(v.dtype)) % 16) return false;
  return true;
}

inline void check_heads(const Call& call, int64_t query_heads, int64_t kv_heads, const char* kv) {
  if (query_heads < 1 || kv_heads < 1 || query_heads % kv_heads)
    call.refuse(CUL_SHAPE, "q has %lld heads but %s has %lld; Hq must be a multiple of Hkv", ll(query_heads), kv,
                ll(kv_heads));
}

// P has index_items(), valid(i): whether item i of the index tensors leads nowhere outside, and invalid_text(i) for the host. Runs
// with the op, on the cpu always, elsewhere under CUL_OP_VALIDATE.
template <class P>
void require_valid(const char* op, const P& p) {
  for (int64_t i = 0; i < p.index_items(); ++i)
    if (!p.valid(i)) throw DeviceError(std::string(op) + ": " + p.invalid_text(i));
}

// One sequence's pages: entries [begin, end) of a row of the page table.
CUL_NUMERIC bool valid_pages(const int32_t* table, int64_t begin, int64_t end, int64_t pages, int32_t least) {
  for (int64_t i = begin; i < end; ++i)
    if (table[i] < least || table[i] >= pages) return false;
  return true;
}

}  // namespace culebra

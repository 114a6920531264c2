// Operands of heads, as the operators on caches and the sparse ones address them.
#pragma once
#include "abi/indices.h"
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

}  // namespace culebra

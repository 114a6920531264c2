// Tours over listed blocks of keys of one query head, up to a position: what the operators that choose blocks attend with
// (attention/tile/tour.cuh).
#pragma once
#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/tour.cuh"

namespace culebra::CUL_DEVICE_NS {

// The loop for f32 with fewer rows than attention's: a tour of lists takes some more registers.
using ListF32Tile = F32Tile<256, 2>;

struct ListTour {
  const char* q_rows;  // of the tile's first row; rows follow by their strides, in bytes
  char* o_rows;
  char* lse_rows;  // or null
  int64_t q_stride, o_stride, lse_stride, k_stride, v_stride;
  const char* k;  // of the sequence's first key
  const char* v;
  const int32_t* list;   // blocks, ascending; null: those below `gap_begin` and, `gap` further on, the others
  int entries, block, keys;
  int gap_begin, gap;
  int count, first_end;  // rows; how many keys the first row sees
  bool causal;           // each further row sees one more; otherwise all see `keys`

  struct Row {
    int end;
  };
  CUL_DEVICE_FN int block_of(int entry) const {
    return list ? list[entry] : entry < gap_begin ? entry : entry + gap;
  }
  CUL_DEVICE_FN int rows() const { return count; }
  CUL_DEVICE_FN const void* q(int r) const { return q_rows + r * q_stride; }
  CUL_DEVICE_FN void* o(int r) const { return o_rows + r * o_stride; }
  CUL_DEVICE_FN float* lse(int r) const {
    return lse_rows ? reinterpret_cast<float*>(lse_rows + r * lse_stride) : nullptr;
  }
  CUL_DEVICE_FN float sink(int) const { return kNoScore; }
  CUL_DEVICE_FN int64_t index(int r) const { return r; }  // keys are never split

  CUL_DEVICE_FN int begin() const { return 0; }
  CUL_DEVICE_FN int end() const { return entries * block; }
  CUL_DEVICE_FN int key(int n) const { return block_of(n / block) * block + n % block; }
  CUL_DEVICE_FN KeyPlace place(int n) const {
    const int64_t at = key(n);
    if (at >= keys) return {nullptr, nullptr};
    return {k + at * k_stride, v + at * v_stride};
  }
  CUL_DEVICE_FN bool edge(int, int last) const { return (block_of((last - 1) / block) + 1) * block > row(0).end; }
  CUL_DEVICE_FN Row row(int r) const {
    return {!causal ? keys : max(min(first_end + r, keys), 0)};
  }
  CUL_DEVICE_FN bool sees(const Row& row, int n) const { return key(n) < row.end; }
};

}  // namespace culebra::CUL_DEVICE_NS

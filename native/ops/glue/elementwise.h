// Elementwise over any strides: add, scale, cast, copy_strided.
#pragma once
#include "culebra/glue.h"
#include "ops/glue/convert.h"
#include "ops/glue/rows.h"

namespace culebra {

// How N operands of one shape are walked, the output first. Dimensions of extent 1 are gone, the others are ordered by the
// output's stride and merged where every operand allows: the last one is the inner loop, the rest are rows.
template <int kOperands>
struct Walk {
  static constexpr int N = kOperands;
  static constexpr int kMaxRank = 6;
  int outer = 0;  // dimensions outside the inner one
  int64_t rows = 1, columns = 1;
  int64_t extent[kMaxRank] = {};
  int64_t stride[N][kMaxRank] = {};
  int64_t inner_stride[N] = {};
  char* data[N] = {};

  CUL_NUMERIC bool contiguous() const {
    for (int n = 0; n < N; ++n)
      if (inner_stride[n] != 1 && columns > 1) return false;
    return true;
  }
  // Whether packs of so many elements of operands with so large elements begin at multiples of their size.
  bool aligned(int64_t pack, const int64_t (&element_bytes)[N]) const {
    if (!contiguous()) return false;
    for (int n = 0; n < N; ++n) {
      if (reinterpret_cast<uintptr_t>(data[n]) % static_cast<uintptr_t>(pack * element_bytes[n])) return false;
      for (int i = 0; i < outer; ++i)
        if (stride[n][i] % pack) return false;
    }
    return true;
  }
  // Offsets of a row's first elements.
  CUL_NUMERIC void locate(int64_t row, int64_t (&offset)[N]) const {
    for (int n = 0; n < N; ++n) offset[n] = 0;
    for (int i = outer - 1; i >= 0; --i) {
      const int64_t next = divide(row, extent[i]), at = row - next * extent[i];
      for (int n = 0; n < N; ++n) offset[n] += at * stride[n][i];
      row = next;
    }
  }
};

struct AddParams {
  DType dtype;
  Walk<3> walk;
};
struct ScaleParams {
  DType dtype;
  Walk<2> walk;
  float factor;
};
struct CastParams {
  DType from, to;
  Walk<2> walk;
};
struct CopyStridedParams {
  int element_bytes;
  Walk<2> walk;
};

AddParams check_add(const Call& call, const cul_add_args& args);
ScaleParams check_scale(const Call& call, const cul_scale_args& args);
CastParams check_cast(const Call& call, const cul_cast_args& args);
CopyStridedParams check_copy_strided(const Call& call, const cul_copy_strided_args& args);

CUL_DECLARE_COLUMNS(add, AddParams)
CUL_DECLARE_COLUMNS(scale, ScaleParams)
CUL_DECLARE_COLUMNS(cast, CastParams)
CUL_DECLARE_COLUMNS(copy_strided, CopyStridedParams)

// f(T{}) for an unsigned integer of so many bytes: bits that are moved and not read.
template <class F>
void with_bytes(int bytes, F&& f) {
  switch (bytes) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    default: return f(uint64_t{});
  }
}

}  // namespace culebra

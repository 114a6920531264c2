// Over the last dimension: softmax and argmax.
#pragma once
#include "culebra/glue.h"
#include "ops/glue/rows.h"

namespace culebra {

struct SoftmaxParams {
  DType dtype;
  int64_t rows, columns;
  bool aligned;  // every row begins at a multiple of 16 bytes
  Rows x, y;
};

struct ArgmaxParams {
  DType dtype;
  int64_t rows, columns;
  bool aligned;
  Rows x;
  int32_t* ids;
};

SoftmaxParams check_softmax(const Call& call, const cul_softmax_args& args);
ArgmaxParams check_argmax(const Call& call, const cul_argmax_args& args);

CUL_DECLARE_COLUMNS(softmax, SoftmaxParams)
CUL_DECLARE_COLUMNS(argmax, ArgmaxParams)

namespace glue {

// Keys of floats in ascending order: -0 equals +0, NaN comes after +inf.
CUL_NUMERIC uint32_t order_of(float x) {
  if (x != x) return 0xffffffffu;
  const uint32_t bits = numeric::float_bits(x + 0.0f);  // -0 + 0 = +0
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The largest of these names the lowest index among the largest elements.
CUL_NUMERIC uint64_t argmax_key(float x, int64_t index) {
  return static_cast<uint64_t>(order_of(x)) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}
CUL_NUMERIC int32_t argmax_index(uint64_t key) { return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key)); }

}  // namespace glue
}  // namespace culebra

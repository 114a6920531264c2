// What the family's checks and columns share: operands seen as rows, and dispatch on a float type.
#pragma once
#include <algorithm>
#include <initializer_list>

#include "abi/indices.h"
#include "abi/op.h"
#include "device/numeric.h"

namespace culebra {

// Rows of elements whose inner stride is 1. An absent operand has no data.
struct Rows {
  void* data = nullptr;
  int64_t stride = 0;  // from row to row, in elements

  CUL_NUMERIC explicit operator bool() const { return data != nullptr; }
  template <class T>
  CUL_NUMERIC T* row(int64_t index) const {
    return static_cast<T*>(data) + index * stride;
  }
};

// a / b of numbers that are not negative. GPUs divide 64 bits in software: most numbers are small.
CUL_NUMERIC int64_t divide(int64_t a, int64_t b) {
  return (a | b) >> 32 ? a / b : static_cast<int64_t>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b));
}

// f(T{}) for the float type that `type` names; checks have admitted no other.
template <class F>
void with_float(DType type, F&& f) {
  switch (type) {
    case DType::f32: return f(float{});
    case DType::f16: return f(half_t{});
    default: return f(bfloat16_t{});
  }
}

namespace glue {

inline Rows rows_of(const View& v) { return {v.data, v.rank > 0 ? v.stride_of(0) : 0}; }

// Elements that one 16-byte access moves.
constexpr int64_t pack_of(DType type) { return 16 / static_cast<int64_t>(size_of(type)); }

// Whether every row of every operand begins at a multiple of 16 bytes (their bases do).
inline bool aligned_rows(std::initializer_list<const View*> operands) {
  return std::all_of(operands.begin(), operands.end(), [](const View* v) {
    if (!*v) return true;
    for (int i = 0; i + 1 < v->rank; ++i)
      if ((*v)[i] > 1 && v->stride_of(i) % pack_of(v->dtype)) return false;
    return true;
  });
}

// Rows that one piece of a parallel loop takes at least: waking a thread costs as much as some ten thousand elements.
inline int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(columns, 1)); }

}  // namespace glue
}  // namespace culebra

// What happens to a finished sum: bias, activation, one rounding to c's type. Shared by the tile kernels and by the sum of splits.
#pragma once
#include "abi/dtype.h"
#include "culebra/gemm.h"
#include "device/launch.h"
#include "device/vector.h"

namespace culebra::CUL_DEVICE_NS {

enum class Activation : int32_t { none, silu, gelu, silu_mul };

struct Output {
  void* c;
  int64_t ldc;
  int64_t m, n;      // of the product; c has n / 2 columns with silu_mul
  const void* bias;  // [n] of the operands' type, or null
  DType dtype;       // of c
  Activation activation;
  int32_t aligned;  // rows of c start at multiples of 16 bytes
};

CUL_DEVICE_FN float silu(float x) { return x / (1.0f + expf(-x)); }
CUL_DEVICE_FN float activate(float x, Activation activation) {
  if (activation == Activation::silu) return silu(x);
  if (activation == Activation::gelu) return 0.5f * x * (1.0f + erff(x * 0.707106781f));
  return x;
}

template <class T>
CUL_DEVICE_FN float bias_of(const Output& o, int64_t column) {
  return o.bias ? to_float(static_cast<const T*>(o.bias)[column]) : 0.0f;
}

// The bias has c's type.
template <>
CUL_DEVICE_FN float bias_of<void>(const Output& o, int64_t column) {
  return o.dtype == DType::f16    ? bias_of<half_t>(o, column)
         : o.dtype == DType::bf16 ? bias_of<bfloat16_t>(o, column)
                                  : bias_of<float>(o, column);
}

CUL_DEVICE_FN void store_element(const Output& o, int64_t token, int64_t column, float value) {
  const int64_t at = token * o.ldc + column;
  if (o.dtype == DType::f16)
    static_cast<half_t*>(o.c)[at] = from_float<half_t>(value);
  else if (o.dtype == DType::bf16)
    static_cast<bfloat16_t*>(o.c)[at] = from_float<bfloat16_t>(value);
  else
    static_cast<float*>(o.c)[at] = value;
}

// Columns of c from `column` on (a multiple of 8), those below `width`.
CUL_DEVICE_FN void store_columns(const Output& o, int64_t token, int64_t column, int64_t width, const float (&y)[8]) {
  if (o.aligned && column + 8 <= width && o.dtype != DType::f32) {
    uint4 packed;
    if (o.dtype == DType::f16)
      packed = make_uint4(pack2<half_t>(y[0], y[1]), pack2<half_t>(y[2], y[3]), pack2<half_t>(y[4], y[5]), pack2<half_t>(y[6], y[7]));
    else
      packed = make_uint4(pack2<bfloat16_t>(y[0], y[1]), pack2<bfloat16_t>(y[2], y[3]), pack2<bfloat16_t>(y[4], y[5]),
                          pack2<bfloat16_t>(y[6], y[7]));
    *reinterpret_cast<uint4*>(static_cast<uint16_t*>(o.c) + token * o.ldc + column) = packed;
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
    if (column + i < width) store_element(o, token, column + i, y[i]);
}

// Columns of c from `column` on (a multiple of 8): sums x and, for silu_mul, those of the other half of n.
template <class T>
CUL_DEVICE_FN void finish_columns(const Output& o, int64_t token, int64_t column, const float* x, const float* up) {
  const bool gated = o.activation == Activation::silu_mul;
  const int64_t width = gated ? o.n / 2 : o.n;
  float y[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const bool inside = column + i < width;
    const float sum = inside ? x[i] + bias_of<T>(o, column + i) : 0.0f;
    y[i] = inside && gated ? silu(sum) * (up[i] + bias_of<T>(o, column + i + width)) : activate(sum, o.activation);
  }
  store_columns(o, token, column, width, y);
}

// c = epilogue of the sum over splits of partials [splits, m, width], in order. T: the bias's type (split_sum.cu).
template <class T>
void sum_splits(const Output& output, const float* partials, int64_t width, int64_t splits, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

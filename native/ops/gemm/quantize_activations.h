// quantize_activations: activations in 8 bits, with the scales that products multiply back. One arithmetic for all backends.
//
//   scale = max(amax / qmax, 1e-12), amax the largest |x| of a row or of 128 values of it, qmax 127 (i8) or 448 (f8e4m3)
//   q     = x / scale, rounded to the nearest integer or f8, ties to even, and saturated
//
// Every division is one, rounded as IEEE says: multiplying by 1 / scale would move values that lie next to a tie, and the backends
// would choose different integers. A NaN makes its scale NaN (f8: the values as well), an infinity infinite: both reach every
// product of that row. With a given scale a NaN is the NaN of f8, and 0 in i8, which has none.
#pragma once
#include "abi/op.h"
#include "culebra/gemm.h"
#include "device/numeric.h"

namespace culebra {

struct QuantizeActivationsParams {
  const void* x;  // [m, k] of `dtype`
  int64_t ldx;
  void* q;  // [m, k], f8e4m3 or i8
  int64_t ldq;
  float* scales;  // [m, blocks]; null: static
  int64_t lds;
  const float* scale;  // [1]; null: scales are computed
  int64_t m, k;
  int64_t block, blocks;  // values that share a scale, and how many times that is in a row
  DType dtype;
  bool f8;
};

QuantizeActivationsParams check_quantize_activations(const Call& call, const cul_quantize_activations_args& args);

CUL_DECLARE_COLUMNS(quantize_activations, QuantizeActivationsParams)

namespace quantize {

inline constexpr int64_t kActivationBlock = 128;

CUL_NUMERIC float activation_max(bool f8) { return f8 ? 448.0f : 127.0f; }
// amax_quotient = amax / qmax; a NaN stays one.
CUL_NUMERIC float activation_scale(float amax_quotient) { return amax_quotient <= 1e-12f ? 1e-12f : amax_quotient; }

}  // namespace quantize
}  // namespace culebra

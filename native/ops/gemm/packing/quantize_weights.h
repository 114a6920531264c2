// quantize_weights: round to nearest, with a search over clipping ratios per group. One arithmetic for all backends.
//
// A candidate of ratio r gives a group with minimum l and maximum h (0 included) and qmax = 2^bits - 1 the scale
//   symmetric   s = r max(-l, h) / (2^(bits-1) - 1), z = 2^(bits-1)
//   asymmetric  s = r (h - l) / qmax,                z = round(-r l / s)
// rounded to the dtype in which it is stored; q = clamp(round(w / s) + z, 0, qmax). The ratio with the least sum of
// (w - (q - z) s)^2 wins, the larger one where equal; r = 1 is the first. Sums run over 32 lanes (row i of the group in lane
// i mod 32), which are added pairwise: lane l and l + 16, then l + 8, ...: one order on every backend, and every product and
// sum is rounded by itself, so that all of them choose the same integers.
#pragma once
#include "abi/op.h"
#include "culebra/gemm.h"
#include "device/numeric.h"

namespace culebra {

struct QuantizeWeightsParams {
  const void* w;  // [n, k]
  int64_t w_stride;
  uint8_t* q;  // [n, k]
  int64_t q_stride;
  void* scales;  // [n, groups]
  int64_t scales_stride;
  uint8_t* zeros;  // [n, groups], null: symmetric
  int64_t zeros_stride;
  int64_t n, k, group, groups;  // group: rows of a full group
  int32_t bits;
  DType w_dtype, scale_dtype;
};

QuantizeWeightsParams check_quantize_weights(const Call& call, const cul_quantize_weights_args& args);

CUL_DECLARE_COLUMNS(quantize_weights, QuantizeWeightsParams)

namespace quantize {

inline constexpr int kLanes = 32;
inline constexpr int kRatios = 16;
CUL_NUMERIC float ratio(int candidate) { return static_cast<float>(40 - candidate) / 40.0f; }  // 1 .. 0.625

// Each rounded by itself: no compiler may fuse them (the host code is compiled with -ffp-contract=off).
#if defined(__CUDA_ARCH__)
CUL_NUMERIC float product(float a, float b) { return __fmul_rn(a, b); }
CUL_NUMERIC float sum(float a, float b) { return __fadd_rn(a, b); }
CUL_NUMERIC float quotient(float a, float b) { return __fdiv_rn(a, b); }
CUL_NUMERIC float nearest(float a) { return rintf(a); }
#else
CUL_NUMERIC float product(float a, float b) { return a * b; }
CUL_NUMERIC float sum(float a, float b) { return a + b; }
CUL_NUMERIC float quotient(float a, float b) { return a / b; }
CUL_NUMERIC float nearest(float a) { return __builtin_rintf(a); }
#endif
CUL_NUMERIC float clamp(float x, float low, float high) { return !(x > low) ? low : x > high ? high : x; }  // NaN: low

struct Grid {
  float scale;  // as stored
  float zero;
};

// Positive and finite as stored, whatever the group holds: an all-zero group takes 1.
template <class Scale>
CUL_NUMERIC Scale storable_scale(float s);
template <>
CUL_NUMERIC float storable_scale<float>(float s) {
  return s > 0 ? clamp(s, 1.40129846e-45f, 3.40282347e38f) : 1.0f;
}
template <>
CUL_NUMERIC half_t storable_scale<half_t>(float s) {
  return from_float<half_t>(s > 0 ? clamp(s, 5.9604645e-8f, 65504.0f) : 1.0f);
}
template <>
CUL_NUMERIC bfloat16_t storable_scale<bfloat16_t>(float s) {
  return from_float<bfloat16_t>(s > 0 ? clamp(s, 9.1835496e-41f, 3.3895314e38f) : 1.0f);
}

template <class Scale>
CUL_NUMERIC Grid grid(float low, float high, float r, int bits, bool symmetric) {
  const float middle = static_cast<float>(1 << (bits - 1)), top = static_cast<float>((1 << bits) - 1);
  if (symmetric) {
    const float reach = -low > high ? -low : high;
    return {to_float(storable_scale<Scale>(quotient(product(r, reach), middle - 1))), middle};
  }
  const float s = to_float(storable_scale<Scale>(quotient(product(r, sum(high, -low)), top)));
  return {s, clamp(nearest(quotient(product(-r, low), s)), 0, top)};
}

CUL_NUMERIC float quantized(float w, Grid g, int bits) {
  return clamp(sum(nearest(quotient(w, g.scale)), g.zero), 0, static_cast<float>((1 << bits) - 1));
}
CUL_NUMERIC float squared_error(float w, Grid g, int bits) {
  const float e = sum(w, -product(sum(quantized(w, g, bits), -g.zero), g.scale));
  return product(e, e);
}

}  // namespace quantize
}  // namespace culebra

// f16, bf16 and f8 (e4m3) as storage types with the conversions and packed arithmetic of the hardware, for host code, emulated kernels and nvcc.
//
//   half_t           1 sign, 5 exponent (bias 15), 10 mantissa bits
//   bfloat16_t       1 sign, 8 exponent (bias 127), 7 mantissa bits
//   float8_e4m3_t    1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, S.1111.111 is NaN, largest 448
//
// Every conversion rounds to nearest even, subnormals included. Conversions to f8 saturate at 448 (so does infinity), as
// cvt.rn.satfinite does. A NaN becomes the canonical one that NVIDIA's cvt writes (0x7fff, 0x7fff, 0x7f).
// Packed arithmetic works on two elements in a uint32 (the first in the low half) and rounds once.
#pragma once

#include <cstdint>
#if !defined(__CUDACC__) && defined(__F16C__)
#include <immintrin.h>
#endif

// Forced inline: translation units with different target or sanitizer flags include this header, and the linker must never
// choose one's copy of a function for another.
#if defined(__CUDACC__)
#define CUL_NUMERIC __host__ __device__ __forceinline__
#else
#define CUL_NUMERIC __attribute__((always_inline)) inline
#endif

namespace culebra {

struct half_t {
  uint16_t bits;
};
struct bfloat16_t {
  uint16_t bits;
};
struct float8_e4m3_t {
  uint8_t bits;
};

namespace numeric {

// Portable conversions on bit patterns (std::bit_cast would ask nvcc for --expt-relaxed-constexpr).
CUL_NUMERIC uint32_t float_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}
CUL_NUMERIC float bits_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

CUL_NUMERIC uint16_t half_from_float(float value) {
  const uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 2^16 and above
  if (magnitude < 0x38800000u)  // below 2^-14: adding 0.5 leaves a mantissa counted in 2^-24, rounded by the addition
    return static_cast<uint16_t>(sign | (float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000u));
  magnitude += 0xc8000fffu + (magnitude >> 13 & 1u);  // exponent bias 127 -> 15, plus just under half a unit
  return static_cast<uint16_t>(sign | magnitude >> 13);
}

CUL_NUMERIC float float_from_half(uint16_t bits) {
  uint32_t value = (bits & 0x7fffu) << 13;
  const uint32_t exponent = value & 0x0f800000u;
  value += 112u << 23;
  if (exponent == 0x0f800000u) {
    value += 112u << 23;  // infinity and NaN
  } else if (exponent == 0) {
    value = float_bits(bits_float(value + (1u << 23)) - bits_float(113u << 23));  // subnormal: renormalise
  }
  return bits_float(value | (bits & 0x8000u) << 16);
}

CUL_NUMERIC uint16_t bfloat16_from_float(float value) {
  const uint32_t bits = float_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

CUL_NUMERIC uint8_t e4m3_from_float(float value) {
  const uint32_t bits = float_bits(value), sign = bits >> 24 & 0x80u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;
  if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448 and above
  if (magnitude < 0x3c800000u)  // below 2^-6: 2^14 has its last mantissa bit at 2^-9, the subnormal unit
    return static_cast<uint8_t>(sign | (float_bits(bits_float(magnitude) + 16384.0f) - 0x46800000u));
  magnitude += 0x7ffffu + (magnitude >> 20 & 1u);
  return static_cast<uint8_t>(sign | ((magnitude >> 20) - (120u << 3)));
}

CUL_NUMERIC float float_from_e4m3(uint8_t bits) {
  const uint32_t sign = (bits & 0x80u) << 24, magnitude = bits & 0x7fu;
  if (magnitude == 0x7f) return bits_float(sign | 0x7fc00000u);
  // Read as a float whose exponent is 120 too small; the multiplication by 2^120 is exact and renormalises subnormals.
  return bits_float(sign | float_bits(bits_float(magnitude << 20) * bits_float(247u << 23)));
}

}  // namespace numeric

CUL_NUMERIC float to_float(float value) { return value; }

CUL_NUMERIC float to_float(half_t value) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#elif !defined(__CUDACC__) && defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  return numeric::float_from_half(value.bits);
#endif
}

CUL_NUMERIC float to_float(bfloat16_t value) { return numeric::bits_float(static_cast<uint32_t>(value.bits) << 16); }

CUL_NUMERIC float to_float(float8_e4m3_t value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t pair;
  const uint16_t two = value.bits;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(two));
  return to_float(half_t{static_cast<uint16_t>(pair)});
#else
  return numeric::float_from_e4m3(value.bits);
#endif
}

template <class T>
CUL_NUMERIC T from_float(float value);

template <>
CUL_NUMERIC float from_float<float>(float value) {
  return value;
}

template <>
CUL_NUMERIC half_t from_float<half_t>(float value) {
#if defined(__CUDA_ARCH__)
  half_t result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#elif !defined(__CUDACC__) && defined(__F16C__)
  return {value == value ? static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT)) : uint16_t{0x7fff}};
#else
  return {numeric::half_from_float(value)};
#endif
}

template <>
CUL_NUMERIC bfloat16_t from_float<bfloat16_t>(float value) {
#if defined(__CUDA_ARCH__)
  bfloat16_t result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#else
  return {numeric::bfloat16_from_float(value)};
#endif
}

template <>
CUL_NUMERIC float8_e4m3_t from_float<float8_e4m3_t>(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(value));
  return {static_cast<uint8_t>(pair)};
#else
  return {numeric::e4m3_from_float(value)};
#endif
}

// Two elements in one register.
template <class T>
CUL_NUMERIC float low_float(uint32_t pair) {
  return to_float(T{static_cast<uint16_t>(pair)});
}
template <class T>
CUL_NUMERIC float high_float(uint32_t pair) {
  return to_float(T{static_cast<uint16_t>(pair >> 16)});
}
CUL_NUMERIC uint32_t pack_bits(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

template <class T>
CUL_NUMERIC uint32_t pack2(float low, float high);

template <>
CUL_NUMERIC uint32_t pack2<half_t>(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return pack_bits(from_float<half_t>(low).bits, from_float<half_t>(high).bits);
#endif
}

template <>
CUL_NUMERIC uint32_t pack2<bfloat16_t>(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return pack_bits(from_float<bfloat16_t>(low).bits, from_float<bfloat16_t>(high).bits);
#endif
}

namespace numeric {

// The float that keeps, in its last bit, that `value` lies off the float grid ("round to odd"): rounding it again to a type with
// at least two mantissa bits less gives what one rounding of `value` would have given.
CUL_NUMERIC float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) == value || nearest != nearest) return nearest;
  uint32_t bits = float_bits(nearest);
  const bool away = value < 0 ? static_cast<double>(nearest) < value : static_cast<double>(nearest) > value;
  return bits_float((away ? bits - 1 : bits) | 1u);
}

// a * b + c rounded once to T. The product of two such floats is exact in double; the sum is made odd when it is not.
template <class T>
CUL_NUMERIC uint16_t fused(float a, float b, float c) {
  const double product = static_cast<double>(a) * b, addend = c;
  double sum = product + addend;
  const double shadow = sum - product;
  const double error = (product - (sum - shadow)) + (addend - shadow);  // Knuth's two-sum
  if (error != 0 && error == error && sum - sum == 0) {
    uint64_t bits;
    __builtin_memcpy(&bits, &sum, sizeof bits);
    if ((bits & 1) == 0) bits += (error > 0) == (sum > 0) ? 1 : -1;
    __builtin_memcpy(&sum, &bits, sizeof sum);
  }
  return from_float<T>(round_to_odd(sum)).bits;
}

template <class T>
CUL_NUMERIC uint32_t fused2(uint32_t a, uint32_t b, uint32_t c) {
  return pack_bits(fused<T>(low_float<T>(a), low_float<T>(b), low_float<T>(c)),
                   fused<T>(high_float<T>(a), high_float<T>(b), high_float<T>(c)));
}

template <class T>
inline constexpr bool is_half = false;
template <>
inline constexpr bool is_half<half_t> = true;

}  // namespace numeric

// Packed arithmetic, T = half_t or bfloat16_t. sm_80 has only fma for bf16: sums and products are written as one.
template <class T>
CUL_NUMERIC uint32_t hfma2(uint32_t a, uint32_t b, uint32_t c) {
#if defined(__CUDA_ARCH__)
  uint32_t d;
  if constexpr (numeric::is_half<T>) {
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  } else {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  }
  return d;
#else
  return numeric::fused2<T>(a, b, c);
#endif
}

template <class T>
CUL_NUMERIC uint32_t hmul2(uint32_t a, uint32_t b) {
  return hfma2<T>(a, b, 0x80008000u);  // a * b + -0 keeps the sign of a zero product
}
template <class T>
CUL_NUMERIC uint32_t hadd2(uint32_t a, uint32_t b) {
  return hfma2<T>(a, numeric::is_half<T> ? 0x3c003c00u : 0x3f803f80u, b);
}
template <class T>
CUL_NUMERIC uint32_t hsub2(uint32_t a, uint32_t b) {
  return hfma2<T>(b, numeric::is_half<T> ? 0xbc00bc00u : 0xbf80bf80u, a);
}

}  // namespace culebra

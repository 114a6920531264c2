// CUDA's arithmetic and bit intrinsics for the host compiler. The approximate ones (__expf, __fdividef) are computed exactly
// here: kernels must not depend on the error of the hardware's approximation.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "device/numeric.h"

namespace culebra::simt {

inline constexpr int warpSize = 32;

// CUDA mixes operand types freely, and of a NaN and a number it takes the number.
template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  return y < x || x != x ? y : x;
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  const T x = static_cast<T>(a), y = static_cast<T>(b);
  return x < y || x != x ? y : x;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float fdividef(float a, float b) { return a / b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __exp10f(float x) { return std::pow(10.0f, x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __log10f(float x) { return std::log10(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

inline uint32_t __float_as_uint(float x) { return numeric::float_bits(x); }
inline int __float_as_int(float x) { return static_cast<int>(numeric::float_bits(x)); }
inline float __uint_as_float(uint32_t x) { return numeric::bits_float(x); }
inline float __int_as_float(int x) { return numeric::bits_float(static_cast<uint32_t>(x)); }

// Conversions saturate and turn NaN into zero, as cvt does (a cast on the host would be undefined).
namespace detail {
template <class I>
I saturated(double x) {
  constexpr double low = static_cast<double>(std::is_signed_v<I> ? -2147483647 - 1 : 0);
  constexpr double high = std::is_signed_v<I> ? 2147483647.0 : 4294967295.0;
  return x != x ? I{0} : static_cast<I>(x < low ? low : x > high ? high : x);
}
}  // namespace detail
inline int __float2int_rn(float x) { return detail::saturated<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return detail::saturated<int>(std::trunc(x)); }
inline int __float2int_rd(float x) { return detail::saturated<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return detail::saturated<int>(std::ceil(x)); }
inline unsigned __float2uint_rn(float x) { return detail::saturated<unsigned>(std::nearbyint(x)); }
inline unsigned __float2uint_rz(float x) { return detail::saturated<unsigned>(std::trunc(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }

inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline uint32_t __brev(uint32_t x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(x);
}
inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t shift) {
  return static_cast<uint32_t>(((static_cast<uint64_t>(high) << 32 | low) << (shift & 31)) >> 32);
}
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
  return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8) c += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
  return c;
}

// Cache operators change nothing that the emulation models.
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcg(T* p, T value) {
  *p = value;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}

}  // namespace culebra::simt

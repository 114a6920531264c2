// From a word of MarlinLayout to two columns of a weight fragment, exactly.
//
// A nibble becomes a half by an OR: with the exponent of 1024 (f16) or 128 (bf16) in front, the mantissa bits are the integer.
// Subtracting 1024 + z (128 + z) leaves q - z. In f16 there is room for the nibbles four bits up, which count sixteenfold: one FMA
// brings them down and subtracts, and saves two shifts.
#pragma once
#include "device/bits.h"
#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

CUL_DEVICE_FN uint32_t component(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

template <class T>
inline constexpr uint32_t int4_magic = numeric::is_half<T> ? 0x64006400u : 0x43004300u;  // 1024, 128

// 1024 + z (128 + z) in both halves, z = byte i of four zero points.
template <class T>
CUL_DEVICE_FN uint32_t int4_bias(uint32_t zeros, int i) {
  return prmt(zeros, int4_magic<T> >> 24, 0x4040u | static_cast<uint32_t>(i) * 0x0101u);
}

// The scale in the low half of `bits`.
CUL_DEVICE_FN float half_scale(uint32_t bits, bool bf16) {
  const uint16_t low = static_cast<uint16_t>(bits);
  return bf16 ? to_float(bfloat16_t{low}) : to_float(half_t{low});
}

// Columns 2w (a[0], a[2]: k, k + 8) and 2w + 1 (a[1], a[3]) of the lane's eight, from word w and their biases.
template <class T>
CUL_DEVICE_FN void dequantize(uint32_t word, uint32_t low, uint32_t high, uint32_t (&a)[4]) {
  constexpr int kAndOr = (0xf0 & 0xcc) | 0xaa;
  constexpr uint32_t kMagic = int4_magic<T>;
  a[0] = hsub2<T>(lop3<kAndOr>(word, 0x000f000fu, kMagic), low);
  a[1] = hsub2<T>(lop3<kAndOr>(word >> 8, 0x000f000fu, kMagic), high);
  if constexpr (numeric::is_half<T>) {
    constexpr uint32_t kSixteenth = 0x2c002c00u, kToUpper = 0xd400d400u - 16 * kMagic;  // 16 (1024 + z) as bits, and - (64 + z)
    a[2] = hfma2<T>(lop3<kAndOr>(word, 0x00f000f0u, kMagic), kSixteenth, low * 16 + kToUpper);
    a[3] = hfma2<T>(lop3<kAndOr>(word >> 8, 0x00f000f0u, kMagic), kSixteenth, high * 16 + kToUpper);
  } else {
    a[2] = hsub2<T>(lop3<kAndOr>(word >> 4, 0x000f000fu, kMagic), low);
    a[3] = hsub2<T>(lop3<kAndOr>(word >> 12, 0x000f000fu, kMagic), high);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

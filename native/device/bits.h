// Bit manipulation and approximate arithmetic that CUDA C++ has no spelling for.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

// Any function of three bits, bitwise: bit 4a + 2b + c of kTable is its value at (a, b, c). The table of an expression is the
// expression itself on 0xf0, 0xcc, 0xaa: (a & b) | c has (0xf0 & 0xcc) | 0xaa.
template <int kTable>
CUL_DEVICE_FN uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
  static_assert(kTable >= 0 && kTable < 256, "a truth table of three inputs has eight bits");
#if CUL_EMULATED
  uint32_t result = 0;
  for (int i = 0; i < 8; ++i)
    if (kTable >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return result;
#else
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(result) : "r"(a), "r"(b), "r"(c), "n"(kTable));
  return result;
#endif
}

// Byte i of the result is byte (selector >> 4i) & 7 of the eight bytes b:a; with bit 3 of the selector, that byte's sign in all bits.
CUL_DEVICE_FN uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
#if CUL_EMULATED
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> (4 * i) & 15u;
    uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (choice & 7u))) & 0xffu;
    if (choice & 8u) byte = byte & 0x80u ? 0xffu : 0u;
    result |= byte << (8 * i);
  }
  return result;
#else
  uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
  return result;
#endif
}

#if CUL_EMULATED
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) { return prmt(a, b, selector & 0x7777u); }
#endif

// 2^x, one instruction on the device: relative error up to 2^-22, subnormal results are zero.
CUL_DEVICE_FN float fast_exp2(float x) {
#if CUL_EMULATED
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.0f : y;
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// 1 / x, relative error up to 2^-23.
CUL_DEVICE_FN float fast_reciprocal(float x) {
#if CUL_EMULATED
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

}  // namespace culebra::CUL_DEVICE_NS

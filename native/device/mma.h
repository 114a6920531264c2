// Matrix fragments: ldmatrix, stmatrix, mma.sync.
//
// Lane = 4 g + t, g = 0..7, t = 0..3. One 32-bit register holds two 16-bit or four 8-bit elements, the first in the low bits.
//
// mma m16n8k16 (f16, bf16; D, C f32): D[16,8] = A[16,16] B[16,8] + C
//
//             k = 2t,2t+1      k = 2t+8,2t+9                        n = g                              n = 2t, 2t+1
//   row g    [   a[0]      |      a[2]      ]     k = 2t,2t+1   [    b[0]    ]         row g      [   d[0], d[1]  ]
//   row g+8  [   a[1]      |      a[3]      ]     k = 2t+8,+9   [    b[1]    ]         row g+8    [   d[2], d[3]  ]
//
// mma m16n8k32 (s8 with D, C s32; e4m3 with f32): the same picture, a register holding k = 4t..4t+3, the second one k = 16+4t..16+4t+3.
//
// ldmatrix.xN loads N 8x8 matrices of 16-bit elements: lane 8m + r gives the shared address of row r (16 bytes, 16-byte aligned) of
// matrix m; register m then holds elements 2t, 2t+1 of row g, or with .trans of column g. Hence x4 with rows from
//   A row-major [16,16]: row lane % 16, k half lane / 16      gives a[0..3]
//   B as [n][k]:         n = lane % 8,  k half lane / 8 % 2   gives b[0..1] (x2; x4 for two n tiles)
//   B as [k][n], .trans: k = lane % 16, n half lane / 16      gives b[0..1] of two n tiles
//
// movmatrix_trans: an 8x8 matrix in registers, a lane holding elements 2t, 2t+1 of row g, becomes its transpose. pack2 of d[0], d[1] is one.
#pragma once

#include "device/warp.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

inline uint32_t movmatrix_trans(uint32_t r, Here here = Here::current()) {
  const uint3 at = thread_index();
  const dim3 extent = block_extent();
  const int lane = static_cast<int>(at.x + extent.x * (at.y + extent.y * at.z)) % 32, g = lane / 4, t = lane % 4;
  const uint32_t low = __shfl_sync(kFullMask, r, 8 * t + g / 2, 32, here), high = __shfl_sync(kFullMask, r, 8 * t + 4 + g / 2, 32, here);
  return (low >> (g % 2 * 16) & 0xffffu) | high >> (g % 2 * 16) << 16;
}

inline void ldmatrix_x1(uint32_t& r, uint32_t address, Here here = Here::current()) {
  ldmatrix(&r, 1, false, address, here);
}
inline void ldmatrix_x2(uint32_t (&r)[2], uint32_t address, Here here = Here::current()) {
  ldmatrix(r, 2, false, address, here);
}
inline void ldmatrix_x4(uint32_t (&r)[4], uint32_t address, Here here = Here::current()) {
  ldmatrix(r, 4, false, address, here);
}
inline void ldmatrix_x1_trans(uint32_t& r, uint32_t address, Here here = Here::current()) {
  ldmatrix(&r, 1, true, address, here);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t address, Here here = Here::current()) {
  ldmatrix(r, 2, true, address, here);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address, Here here = Here::current()) {
  ldmatrix(r, 4, true, address, here);
}

// sm_90 and up.
inline void stmatrix_x4(uint32_t address, const uint32_t (&r)[4], Here here = Here::current()) {
  stmatrix(r, 4, false, address, here);
}
inline void stmatrix_x4_trans(uint32_t address, const uint32_t (&r)[4], Here here = Here::current()) {
  stmatrix(r, 4, true, address, here);
}

// d += a b, T = half_t or bfloat16_t.
template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Here here = Here::current()) {
  const uint32_t b[2] = {b0, b1};
  mma_m16n8k16(d, a, b, d, numeric::is_half<T> ? MatrixType::f16 : MatrixType::bf16, here);
}
inline void mma_m16n8k32_s8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                            Here here = Here::current()) {
  const uint32_t b[2] = {b0, b1};
  mma_m16n8k32_s8(d, a, b, d, here);
}
// sm_89 and up.
inline void mma_m16n8k32_e4m3(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                              Here here = Here::current()) {
  const uint32_t b[2] = {b0, b1};
  mma_m16n8k32_e4m3(d, a, b, d, here);
}

#else

CUL_DEVICE_FN uint32_t movmatrix_trans(uint32_t r) {
  uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(r));
  return transposed;
}
CUL_DEVICE_FN void ldmatrix_x1(uint32_t& r, uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(address) : "memory");
}
CUL_DEVICE_FN void ldmatrix_x2(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}
CUL_DEVICE_FN void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
CUL_DEVICE_FN void ldmatrix_x1_trans(uint32_t& r, uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(address) : "memory");
}
CUL_DEVICE_FN void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(address)
               : "memory");
}
CUL_DEVICE_FN void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
CUL_DEVICE_FN void stmatrix_x4(uint32_t address, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]), "r"(r[1]),
               "r"(r[2]), "r"(r[3])
               : "memory");
}
CUL_DEVICE_FN void stmatrix_x4_trans(uint32_t address, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(r[0]),
               "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
}
#endif

template <class T>
CUL_DEVICE_FN void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (numeric::is_half<T>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}
CUL_DEVICE_FN void mma_m16n8k32_s8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
CUL_DEVICE_FN void mma_m16n8k32_e4m3(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

#endif

}  // namespace culebra::CUL_DEVICE_NS

// mma.sp: tensor-core products with a 2:4 sparse operand A.
//
// m16n8k32 (f16, bf16; D, C f32): D[16,8] = A[16,32] B[32,8] + C, where of each four consecutive k A stores two, and two bits for
// each say which. Lane = 4 g + t, g = 0..7, t = 0..3.
//
//             k = 4t .. 4t+3   k = 16+4t ..                             n = g                           n = 2t, 2t+1
//   row g    [   a[0]      |      a[2]      ]     k = 2t+8i, +1    [   b[i], i = 0..3  ]    row g      [ d[0], d[1] ]
//   row g+8  [   a[1]      |      a[3]      ]                                               row g+8    [ d[2], d[3] ]
//
// A register of a holds the two stored values of its four k, the first in the low bits. The positions come from two lanes of every four,
// t = 2 kSelector and 2 kSelector + 1, for k < 16 and k >= 16; four bits for every four k, ascending, the first position in the
// low two of them:
//
//   metadata  bits 0..15: row g     bits 16..31: row g+8
//
// The other two lanes' metadata is not read: one register serves two products. The first position is below the second.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

// d += a b, T = half_t or bfloat16_t.
#if CUL_EMULATED

template <class T, int kSelector>
void mma_sparse_m16n8k32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t metadata, Here here = Here::current()) {
  static_assert(kSelector == 0 || kSelector == 1);
  mma_sparse_m16n8k32(d, a, b, metadata, kSelector, numeric::is_half<T> ? MatrixType::f16 : MatrixType::bf16, here);
}

#else

// The ordered form: the plain one may run at a fraction of the rate on sm_90 (PTX ISA 8.5).
template <class T, int kSelector>
CUL_DEVICE_FN void mma_sparse_m16n8k32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], uint32_t metadata) {
  static_assert(kSelector == 0 || kSelector == 1);
  if constexpr (numeric::is_half<T>) {
    asm volatile(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(metadata), "n"(kSelector));
  } else {
    asm volatile(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(metadata), "n"(kSelector));
  }
}

#endif

}  // namespace culebra::CUL_DEVICE_NS

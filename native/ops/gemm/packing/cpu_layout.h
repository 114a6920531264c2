// Where the cpu backend stores quantized weights [N,K]: one sequential stream per tile of 32 columns n. A line of 16 (or 32) words has
// a word for each of its columns, so that every vector width that divides a line reads the same bytes.
//
// 4 bits: 128-byte steps of 8 k.
//
//   tile n/32: | k 0..7 | k 8..15 | ...          one step = 32 words = two 64-byte lines
//   step:      | n 0 | n 1 | ... | n 31 |         one word per n = its 8 values of k
//   word:      bits  0..15: k 0 2 4 6             nibble s of the low half
//              bits 16..31: k 1 3 5 7             nibble s of the high half
//
// Shifting a line right by 4 s and masking leaves, in 16-bit lanes, the pairs (k 2s, k 2s+1) of each n: the operand order of
// vpmaddwd and vpdpwssd, which multiply pairs and add them into the 32-bit lane of n. 8 bits: the same with bytes, steps of 4 k. 6 bits:
// steps of 16 k, the low 4 bits of two 4-bit steps and then a word per n with the high 2 bits of its 16 values.
#pragma once
#include "ops/gemm/packing/packed_layout.h"

namespace culebra {

// Padding is to whole steps and to whole groups of the smallest size.
struct CpuLayout : BitLayout<32, 0, Plane<0, 4, k1, k2, k0, n0, n1, n2, n3, n4>> {
  static constexpr int64_t kKStep = 8;  // values of k in a word
};
struct CpuByteLayout : BitLayout<32, 0, Plane<0, 8, k1, k0, n0, n1, n2, n3, n4>> {};
struct CpuSixBitLayout : BitLayout<32, 0, Plane<0, 4, k1, k2, k0, n0, n1, n2, n3, n4, k3>, Plane<4, 2, k1, k2, k3, k0, n0, n1, n2, n3, n4>> {};

}  // namespace culebra

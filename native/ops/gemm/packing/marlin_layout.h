// Where a weight lies in the packed matrix of the cuda and simt backends: the order in which tensor-core fragments want it,
// after Frantar et al., MARLIN (arXiv:2408.11743), with our own order of columns.
//
// The weights are operand A of the tensor cores. Of each 64 columns, column 8g + 2w + r is row g + 8r of the m16 tile w (0..3), so
// that lane 4g + t (g 0..7, t 0..3) owns the 8 neighbouring columns 8g .. 8g + 7: scales, zeros, bias and results are 16-byte
// accesses in their plain order. Bits of n in the texts below: n0 = r, n1 n2 = w, n3 n4 n5 = g.
//
//   half operands, m16n8k16: a lane holds k = 2t, 2t + 1, 2t + 8, 2t + 9 of each row: k0 is the element of a pair, k1 k2 = t, k3 the half
//   byte operands, m16n8k32: k = 4t .. 4t + 3 and 16 + 4t ..: k0 k1 the byte of a register, k2 k3 = t, k4 the half
//
// Whatever the bits, a lane reads 16 bytes at a time and a warp 512 in a row. For 4 bits and half operands that is a block
// of 16 k x 64 n, in which lane 4g + t loads words 4 lane .. 4 lane + 3, its 32 weights:
//
//        n  8g      8g+1    8g+2  ..  8g+7            each cell: the 4 weights k = 2t, 2t+1, 2t+8, 2t+9 of one column
//         +-------+-------+-------+--+-------+
//         |   word 0      |  word 1  |word 3 |
//         +-------+-------+-------+--+-------+
//
// Nibbles of a word, most significant first, c0 = column 8g + 2w, c1 = c0 + 1:
//
//      7          6          5          4          3          2          1          0
//   c1,2t+9    c1,2t+1    c0,2t+9    c0,2t+1    c1,2t+8    c1,2t      c0,2t+8    c0,2t
//
// Nibbles p and p + 4 are neighbours in k: (word >> 4p) & 0x000f000f is a pair, ready to become two halves of a register.
#pragma once
#include "ops/gemm/packing/packed_layout.h"

namespace culebra {

// 4 bits for half operands; 64 k are what a warp reads in one pipeline stage.
struct MarlinLayout : BitLayout<64, 0, Plane<0, 4, k3, n0, k0, n1, n2, k1, k2, n3, n4, n5>> {};

// 8 bits for half operands: the bytes 0, 2 of a word are a pair, and 1, 3 the one 8 k further.
struct ByteFragments : BitLayout<64, 0, Plane<0, 8, k3, k0, n0, n1, k1, k2, n3, n4, n5, n2>> {};

// 6 bits for half operands: per 64 k the low 4 bits as above, then the high 2. Sixteen of those share a word such that, shifted by -4,
// -2, 4 or 6 for (n0, n1), they stand above the nibbles of both k halves.
struct SixBitFragments : BitLayout<64, 0, Plane<0, 4, k3, n0, k0, n1, n2, k1, k2, n3, n4, n5, k4, k5>,
                                  Plane<4, 2, n0, k3, n1, k0, n2, k4, k1, k2, n3, n4, n5, k5>> {};

// 6 bits for byte operands, per 128 k. The highest bit is stored inverted: two's complement, ready for the upper bits of a byte.
struct SixBitByteFragments : BitLayout<128, 32, Plane<0, 4, k4, k0, k1, n0, n1, k2, k3, n3, n4, n5, n2, k5, k6>,
                                      Plane<4, 2, k4, n0, k0, k1, n1, n2, k2, k3, n3, n4, n5, k5, k6>> {};

// 4 bits for byte operands: the nibbles 0..3 of a word select the bytes of one register, 4..7 those of the register 16 k further.
struct Int4ByteFragments : BitLayout<128, 0, Plane<0, 4, k0, k1, k4, n0, n1, k2, k3, n3, n4, n5, n2>> {};

}  // namespace culebra

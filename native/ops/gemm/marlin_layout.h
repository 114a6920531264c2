// Where a 4-bit weight lies in the packed matrix of the cuda and simt backends: the order in which tensor-core fragments
// want it, after Frantar et al., MARLIN (arXiv:2408.11743), with our own order of columns.
//
// Blocks of 16 k x 64 n, 512 bytes each; blocks with consecutive k follow one another, then the next 64 columns. A block is
// read by one warp in one instruction: lane 4g + t (g 0..7, t 0..3) loads words 4 lane .. 4 lane + 3, its 32 weights:
//
//        n  8g      8g+1    8g+2  ..  8g+7            each cell: the 4 weights k = 2t, 2t+1, 2t+8, 2t+9 of one column
//         +-------+-------+-------+--+-------+
//         |   word 0      |  word 1  |word 3 |        Column 8g + j is row g of the m16n8k16 weight operand of n-tile j (the
//         +-------+-------+-------+--+-------+        weights are the operand A: word w is A's rows g and g + 8 at once).
//
// Nibbles of a word, most significant first, c0 = column 8g + 2w, c1 = c0 + 1:
//
//      7          6          5          4          3          2          1          0
//   c1,2t+9    c1,2t+1    c0,2t+9    c0,2t+1    c1,2t+8    c1,2t      c0,2t+8    c0,2t
//
// Nibbles p and p + 4 are neighbours in k: (word >> 4p) & 0x000f000f is a pair, ready to become two halves of a register.
// A lane owns 8 neighbouring columns, so that scales, zeros, bias and results are 16-byte accesses in their plain order.
#pragma once
#include <cstdint>

#include "ops/gemm/checkpoint.h"

#if defined(__CUDACC__)
#define CUL_LAYOUT __host__ __device__ static constexpr
#else
#define CUL_LAYOUT static constexpr
#endif

namespace culebra {

// The interface of every 4-bit layout: a packed matrix is bytes() / 4 words of 8 nibbles (nibble i = bits 4i .. 4i + 3).
struct MarlinLayout {
  static constexpr int64_t kNTile = 64;  // n_padded is a multiple of it
  static constexpr int64_t kKTile = 64;  // k_padded is a multiple of it: what a warp reads in one pipeline stage
  static constexpr int64_t kBlockWords = 128;

  CUL_LAYOUT int64_t bytes(int64_t n_padded, int64_t k_padded) { return n_padded * k_padded / 2; }

  CUL_LAYOUT int64_t word(int64_t n, int64_t k, int64_t /*n_padded*/, int64_t k_padded) {
    const int64_t block = n / 64 * (k_padded / 16) + k / 16;
    const int64_t lane = n % 64 / 8 * 4 + k % 8 / 2;
    return block * kBlockWords + lane * 4 + n % 8 / 2;
  }
  CUL_LAYOUT int nibble(int64_t n, int64_t k) {
    return static_cast<int>(k % 2 * 4 + n % 2 * 2 + k % 16 / 8);
  }
  // The inverse of both.
  CUL_LAYOUT WeightIndex at(int64_t word, int nibble, int64_t /*n_padded*/, int64_t k_padded) {
    const int64_t block = word / kBlockWords, lane = word % kBlockWords / 4, blocks = k_padded / 16;
    return {block / blocks * 64 + lane / 4 * 8 + word % 4 * 2 + nibble / 2 % 2,
            block % blocks * 16 + lane % 4 * 2 + nibble % 2 * 8 + nibble / 4};
  }
};

}  // namespace culebra

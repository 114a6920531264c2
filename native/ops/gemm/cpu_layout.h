// How the cpu backend stores int4 weights [N,K]: one sequential stream of 128-byte steps per tile of 32 columns n.
//
//   tile n/32: | k 0..7 | k 8..15 | ...          one step = 32 words = two 64-byte lines
//   step:      | n 0 | n 1 | ... | n 31 |         one word per n = its 8 values of k
//   word:      bits  0..15: k 0 2 4 6             nibble s of the low half
//              bits 16..31: k 1 3 5 7             nibble s of the high half
//
// Shifting a line right by 4 s and masking leaves, in 16-bit lanes, the pairs (k 2s, k 2s+1) of each n: the operand order of
// vpmaddwd and vpdpwssd, which multiply pairs and add them into the 32-bit lane of n. Every vector width that divides a line
// reads the same bytes.
#pragma once
#include <cstdint>

#include "ops/gemm/marlin_layout.h"  // WeightIndex, and the interface of a layout

namespace culebra {

struct CpuLayout {
  static constexpr int64_t kNTile = 32;
  static constexpr int64_t kKTile = 32;  // whole steps, and whole groups of the smallest size
  static constexpr int64_t kKStep = 8;   // values of k in a word

  static constexpr int64_t bytes(int64_t n_padded, int64_t k_padded) { return n_padded * k_padded / 2; }

  static constexpr int64_t word(int64_t n, int64_t k, int64_t /*n_padded*/, int64_t k_padded) {
    return (n / kNTile * (k_padded / kKStep) + k / kKStep) * kNTile + n % kNTile;
  }
  static constexpr int nibble(int64_t /*n*/, int64_t k) { return static_cast<int>(k % 2 * 4 + k % kKStep / 2); }
  // The inverse of both.
  static constexpr WeightIndex at(int64_t word, int nibble, int64_t /*n_padded*/, int64_t k_padded) {
    const int64_t step = word / kNTile, steps = k_padded / kKStep;
    return {step / steps * kNTile + word % kNTile, step % steps * kKStep + nibble % 4 * 2 + nibble / 4};
  }
};

}  // namespace culebra

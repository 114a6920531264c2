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

namespace culebra {

struct CpuLayout {
  static constexpr int kNTile = 32;
  static constexpr int kKTile = 32;  // whole steps, and whole groups of the smallest size
  static constexpr int kKStep = 8;   // values of k in a word

  // Where element (n, k) lies: the index of its 32-bit word, and of its nibble there (bits 4 i .. 4 i + 3).
  static constexpr int64_t word(int64_t n, int64_t k, int64_t /*n_padded*/, int64_t k_padded) {
    return (n / kNTile * (k_padded / kKStep) + k / kKStep) * kNTile + n % kNTile;
  }
  static constexpr int nibble(int64_t /*n*/, int64_t k) { return static_cast<int>(k % 2 * 4 + k % kKStep / 2); }
  static constexpr int64_t bytes(int64_t n_padded, int64_t k_padded) { return n_padded * k_padded / 2; }
};

}  // namespace culebra

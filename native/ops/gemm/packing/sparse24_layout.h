// 2:4 weights when packed: two values of each four consecutive k, and where they stand. Values that are their zero point (8) fill up where
// fewer than two are not, so that every four has exactly two, the first below the second.
//
// cuda and simt, slices of 64 columns x 64 k, 1536 bytes: MarlinLayout's words of the 32 values that each column keeps, and then, 16 bytes a
// lane, the positions as mma.sp.m16n8k32 wants them (device/mma_sparse.h): word 2 b + p of lane 4g + t belongs to the k
// 32 b .. 32 b + 31 of the m16 tiles w = 2 p and 2 p + 1; lanes t = 0, 1 hold the first one's, k < 16 and k >= 16 of the 32, t = 2, 3 the
// second one's. A lane reads 48 bytes for 64 x 64 / 32 weights: 3 bits each.
//
// cpu, steps of 32 k x 32 columns, 384 bytes: two words per column with the values of four fours each (nibble 4 i of the low half: the
// first of four i, of the high half: the second), and one with the positions of all eight (bits 2 i, 2 i + 1 of either half).
#pragma once
#include "ops/gemm/packing/packed_layout.h"

namespace culebra {

struct Sparse24 {
  static constexpr uint32_t kZero = 8;

  // first | second << 2: the positions of the values that are kept of k .. k + 3, k a multiple of 4.
  template <class Get>
  CUL_LAYOUT uint32_t positions(int64_t n, int64_t k, Get get) {
    uint32_t mask = 0;
    for (int i = 0; i < 4; ++i) mask |= static_cast<uint32_t>(static_cast<uint32_t>(get(n, k + i)) != kZero) << i;
    for (int i = 3; i >= 0 && (mask & (mask - 1)) == 0; --i) mask |= 1u << i;
    uint32_t first = 0;
    while (!(mask >> first & 1)) ++first;
    uint32_t second = first + 1;
    while (!(mask >> second & 1)) ++second;
    return first | second << 2;
  }
  // Value i (0, 1) of that four.
  template <class Get>
  CUL_LAYOUT uint32_t value(int64_t n, int64_t k, int i, Get get) {
    return static_cast<uint32_t>(get(n, k + (positions(n, k, get) >> (2 * i) & 3)));
  }
  // The integer at place k % 4 of a four whose positions are given; value(i) reads what is kept.
  template <class Value>
  CUL_LAYOUT int expand(uint32_t positions, int64_t k, Value value) {
    const auto place = static_cast<uint32_t>(k % 4);
    return static_cast<int>((positions & 3) == place ? value(0) : positions >> 2 == place ? value(1) : kZero);
  }
};

struct Sparse24Fragments {
  static constexpr int64_t kNTile = 64, kKTile = 64;
  using Values = Plane<0, 4, k3, n0, k0, n1, n2, k1, k2, n3, n4, n5, k4>;  // k: of what is kept, 32 of 64
  static constexpr int kPositionWords = 128, kSliceWords = Values::kWords + kPositionWords;

  template <class Get>
  CUL_LAYOUT uint32_t pack(int64_t word, PackedSize size, Get get) {
    const int64_t slice = word / kSliceWords, slices = size.k / kKTile;
    const int64_t n = slice / slices * kNTile, k = slice % slices * kKTile;
    int in_slice = static_cast<int>(word % kSliceWords);
    uint32_t result = 0;
    if (in_slice < Values::kWords) {
      for (int i = 0; i < Values::kPerWord; ++i) {
        const WeightIndex at = Values::at(in_slice * Values::kPerWord + i);
        result |= Values::put(Sparse24::value(n + at.n, k + at.k / 2 * 4, static_cast<int>(at.k % 2), get), i);
      }
      return result;
    }
    in_slice -= Values::kWords;
    const int lane = in_slice / 4, block = in_slice / 2 % 2, pair = in_slice % 2, g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) {  // i / 4: row g or g + 8 of the tile
      const int64_t column = n + 8 * g + 2 * (2 * pair + t / 2) + i / 4, row = k + block * 32 + t % 2 * 16 + i % 4 * 4;
      result |= Sparse24::positions(column, row, get) << (4 * i);
    }
    return result;
  }

  template <class Load>
  CUL_LAYOUT int unpack(int64_t n, int64_t k, PackedSize size, Load load) {
    const int64_t base = (n / kNTile * (size.k / kKTile) + k / kKTile) * kSliceWords;
    const int column = static_cast<int>(n % kNTile), row = static_cast<int>(k % kKTile);
    const int g = column / 8, w = column % 8 / 2, lane = 4 * g + w % 2 * 2 + row % 32 / 16;
    const uint32_t positions = load(base + Values::kWords + lane * 4 + row / 32 * 2 + w / 2) >> (16 * (column % 2) + 4 * (row % 16 / 4)) & 15;
    return Sparse24::expand(positions, k, [&](int i) {
      const int element = Values::element(column, row / 4 * 2 + i);
      return Values::take(load(base + element / Values::kPerWord), element);
    });
  }
};

struct CpuSparse24Layout {
  static constexpr int64_t kNTile = 32, kKTile = 32;
  static constexpr int kStepWords = 96;

  template <class Get>
  CUL_LAYOUT uint32_t pack(int64_t word, PackedSize size, Get get) {
    const int64_t step = word / kStepWords, steps = size.k / kKTile;
    const int64_t n = step / steps * kNTile + word % kNTile, k = step % steps * kKTile;
    const int line = static_cast<int>(word % kStepWords / kNTile);
    uint32_t result = 0;
    for (int four = 0; four < 8; ++four) {
      const int64_t row = k + four * 4;
      if (line == 2) {
        const uint32_t positions = Sparse24::positions(n, row, get);
        result |= ((positions & 3) | positions >> 2 << 16) << (2 * four);
      } else if (four / 4 == line) {
        for (int i = 0; i < 2; ++i) result |= Sparse24::value(n, row, i, get) << (16 * i + four % 4 * 4);
      }
    }
    return result;
  }

  template <class Load>
  CUL_LAYOUT int unpack(int64_t n, int64_t k, PackedSize size, Load load) {
    const int64_t column = (n / kNTile * (size.k / kKTile) + k / kKTile) * kStepWords + n % kNTile;
    const int four = static_cast<int>(k % kKTile / 4);
    const uint32_t positions = load(column + 2 * kNTile) >> (2 * four);
    return Sparse24::expand((positions & 3) | (positions >> 16 & 3) << 2, k,
                            [&](int i) { return load(column + four / 4 * kNTile) >> (16 * i + four % 4 * 4) & 15; });
  }
};

}  // namespace culebra

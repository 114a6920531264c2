// What the plans of the tensor-core products share: choosing a tile, and splitting k.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/gemm/tile/tile_gemm.h"

namespace culebra::tile_plan {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr uint64_t align256(int64_t bytes) { return static_cast<uint64_t>(ceil_div(bytes, 256)) * 256; }

struct TileChoice {
  int32_t tokens, k_warps, blocks_per_sm;
};
template <class Tile>
constexpr TileChoice choice{Tile::kTokens, Tile::kKWarps, Tile::kBlocksPerSm};

// The tile with the fewest rows that holds m, or the largest.
template <size_t N>
constexpr const TileChoice& smallest_holding(const TileChoice (&tiles)[N], int64_t m) {
  for (const TileChoice& t : tiles)
    if (m <= t.tokens) return t;
  return tiles[N - 1];
}

struct Split {
  int32_t splits, slices_per_split;
};
// As many splits of k as fill one wave of blocks, each with at least two pipeline stages of work.
constexpr Split split_k(int64_t blocks, int64_t slots, int64_t slices, int64_t k_warps) {
  if (slices == 0) return {1, 0};
  const int64_t wanted = std::clamp<int64_t>(slots / std::max<int64_t>(blocks, 1), 1, std::max<int64_t>(slices / (2 * k_warps), 1));
  const int64_t per_split = ceil_div(ceil_div(slices, wanted), k_warps) * k_warps;
  return {static_cast<int32_t>(ceil_div(slices, per_split)), static_cast<int32_t>(per_split)};
}

}  // namespace culebra::tile_plan

// The tiles of the products for compute capability 9.0 (hopper_gemm.cuh), for kernels and for the plans that choose among them.
#pragma once
#include <cstdint>

namespace culebra {

// A block computes kTokens rows of a times the columns that the weights' policy gives it. Its warpgroups are arranged as tokens x
// columns; kStages slices of 64 k are in flight or being multiplied.
template <int kGroupTokens_, int kTokenGroups_, int kColumnGroups_, int kStages_, int kBlocksPerSm_>
struct HopperTile {
  static constexpr int kGroupTokens = kGroupTokens_, kTokenGroups = kTokenGroups_, kColumnGroups = kColumnGroups_, kStages = kStages_,
                       kBlocksPerSm = kBlocksPerSm_;
  static constexpr int kTokens = kGroupTokens * kTokenGroups, kWarps = 4 * kTokenGroups * kColumnGroups, kThreads = 32 * kWarps;
};

inline constexpr int kMaxCluster = 8;  // blocks that share the k of one tile: what every device of 9.0 can place

// w4a16_gemm: a block has 256 columns.
inline constexpr int kHopperInt4Columns = 256;
using HopperInt4Tile8 = HopperTile<8, 1, 1, 10, 2>;
using HopperInt4Tile16 = HopperTile<16, 1, 1, 9, 2>;
using HopperInt4Tile32 = HopperTile<32, 1, 1, 8, 2>;
using HopperInt4Tile64 = HopperTile<64, 1, 1, 6, 2>;
using HopperInt4Tile128 = HopperTile<128, 1, 2, 8, 1>;

// gemm of half operands: a warpgroup has 64 columns.
using HopperHalfTile16 = HopperTile<16, 1, 2, 6, 2>;
using HopperHalfTile128 = HopperTile<128, 1, 2, 3, 2>;
using HopperHalfTile256 = HopperTile<256, 1, 2, 4, 1>;

}  // namespace culebra

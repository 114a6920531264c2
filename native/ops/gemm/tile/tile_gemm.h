// The tiles of the tensor-core products (tile_gemm.cuh), for kernels and for the plans that choose among them.
#pragma once
#include <cstdint>

namespace culebra {

// A block of kWarps warps computes kTokens rows of a times kColumns columns of c. Warps are arranged as tokens x columns x k:
// each owns 8 kTokenTiles tokens, 64 columns, and every kKWarps-th slice of k (128 bytes of a row of a); the k warps' sums are added at the end.
// kBlocksPerSm: how many share an SM, by registers and shared memory (the kernel's launch bound, the plan's wave).
template <int kTokenTiles_, int kTokenWarps_, int kColumnWarps_, int kKWarps_, int kStages_, int kBlocksPerSm_>
struct Tile {
  static constexpr int kTokenTiles = kTokenTiles_, kTokenWarps = kTokenWarps_, kColumnWarps = kColumnWarps_,
                       kKWarps = kKWarps_, kStages = kStages_, kBlocksPerSm = kBlocksPerSm_;
  static constexpr int kWarps = kTokenWarps * kColumnWarps * kKWarps, kThreads = 32 * kWarps;
  static constexpr int kTokens = 8 * kTokenTiles * kTokenWarps, kColumns = 64 * kColumnWarps;
};

inline constexpr int kSliceRowBytes = 128;  // of one row of a in one pipeline stage of one warp
inline constexpr int kSliceRows = 64;       // k of it: halves (bytes: 128)
inline constexpr int kColumnBlock = 64;     // columns of one warp

// w4a16_gemm. Few tokens: several warps share k, so that a block streams weights from many places at once.
using Int4Tile8 = Tile<1, 1, 2, 4, 4, 2>;
using Int4Tile16 = Tile<2, 1, 2, 2, 5, 3>;
using Int4Tile32 = Tile<4, 1, 2, 2, 4, 2>;
using Int4Tile64 = Tile<4, 2, 2, 2, 3, 1>;
using Int4Tile128 = Tile<4, 4, 2, 1, 4, 1>;

// 8- and 6-bit weights.
using ByteTile8 = Tile<1, 1, 2, 2, 3, 2>;
using ByteTile32 = Tile<4, 1, 2, 2, 3, 2>;
using ByteTile128 = Tile<4, 4, 2, 1, 3, 1>;

// gemm of half operands.
using HalfTile16 = Tile<2, 1, 2, 1, 5, 2>;
using HalfTile128 = Tile<8, 2, 2, 1, 3, 2>;

}  // namespace culebra

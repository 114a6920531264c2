// The tiles of the products with e4m3 tokens (hopper_f8.cuh, hopper_int4_f8.cuh), for kernels and for the plan that chooses among them.
#pragma once
#include <string>

#include "ops/gemm/hopper/hopper_gemm.h"

namespace culebra {

struct DeviceCaps;
class Call;

// fp8_gemm, 128 columns. Up to 64 tokens the weights are the operand of 64 rows, above the tokens.
using HopperF8Tile16 = HopperTile<16, 1, 2, 5, 2>;
using HopperF8Tile64 = HopperTile<64, 1, 2, 4, 2>;
using HopperF8Tile128 = HopperTile<64, 2, 1, 6, 1>;
using HopperF8Tile256 = HopperTile<128, 2, 1, 4, 1>;

// w4a8_gemm, 256 columns.
using HopperInt4F8Tile8 = HopperTile<8, 1, 1, 6, 2>;
using HopperInt4F8Tile32 = HopperTile<32, 1, 1, 5, 2>;
using HopperInt4F8Tile64 = HopperTile<64, 1, 1, 4, 2>;
using HopperInt4F8Tile128 = HopperTile<64, 2, 1, 6, 1>;

// cuda and simt: how one call is cut up; a pure function of its shapes and the device.
struct F8Plan {
  int32_t tile_tokens = 0;       // rows of a per block
  int32_t splits = 1;            // blocks of a cluster that share the k of one tile
  int32_t slices_per_split = 0;  // of 128 k
  bool copies_a = false, copies_b = false;  // rows at multiples of 16 bytes first, in the workspace
  bool fused = true;             // false: sums go to the workspace, and a second kernel finishes c
  uint64_t b_offset = 0, sums_offset = 0;  // bytes into the workspace; the copied a is at 0
  uint64_t workspace_bytes = 0;
};

// Refuses a device whose tensor cores do not have the instructions: compute capability 9.0 alone has wgmma.
void require_wgmma(const Call& call);

}  // namespace culebra

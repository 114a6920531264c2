// The tiles of the grouped products, for kernels and for the plan that chooses among them.
#pragma once
#include "ops/gemm/hopper/hopper_gemm.h"
#include "ops/gemm/tile/tile_gemm.h"

namespace culebra {

// Rows of one expert that a block of the device computes.
struct GroupedTile {
  int64_t first_row;
  int32_t expert, rows;
};

// 128 columns, or 64 of the gate and 64 of up. k is never split: a row's bits do not depend on how many rows there are.
using GroupedTile16 = Tile<2, 1, 2, 1, 5, 2>;
using GroupedTile64 = Tile<4, 2, 2, 1, 4, 2>;
using GroupedByteTile64 = Tile<2, 4, 2, 1, 4, 1>;  // f8 tokens: sums and totals of 32 tokens a warp spill
using GroupedHalfTile128 = Tile<8, 2, 2, 1, 3, 2>;

}  // namespace culebra

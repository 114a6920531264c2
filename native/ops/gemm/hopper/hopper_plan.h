// What the plans of the products for compute capability 9.0 share.
#pragma once
#include "backends/backend.h"
#include "ops/gemm/hopper/hopper_gemm.h"
#include "ops/gemm/tile/tile_plan.h"

namespace culebra::tile_plan {

// Whether the copy engine takes rows this far apart, in elements of which `word` make 16 bytes: rows that repeat or descend it does not know.
constexpr bool copy_engine_takes(int64_t stride, int64_t word) { return stride > 0 && stride % word == 0; }

// Why the Hopper design does not take a call; null where it does. aligned: the copy engine takes the rows of its operands.
inline const char* not_hopper(const DeviceCaps& caps, bool aligned) {
  if (caps.compute_major != 9 || caps.compute_minor != 0) return "no wgmma";  // 9.0 alone has it
  return aligned ? nullptr : "rows do not start at ascending multiples of 16 bytes";
}

template <class Tile>
constexpr TileChoice hopper_choice{Tile::kTokens, 1, Tile::kBlocksPerSm};

// How many blocks of a cluster share k: the number with which the last tile is done first. A block takes as long as its slices, and
// some more to fill its ring and to add a cluster's sums; blocks come in waves.
inline Split split_cluster(int64_t tiles, int64_t slots, int64_t slices) {
  constexpr int64_t kFill = 4, kSum = 4;  // in slices
  Split best{1, static_cast<int32_t>(slices)};
  int64_t best_time = INT64_MAX;
  for (int32_t splits = 1; splits <= kMaxCluster; splits *= 2) {
    const int64_t per_split = ceil_div(slices, splits);
    if (splits > 1 && (per_split < 2 || (splits - 1) * per_split >= slices)) break;
    const int64_t time = ceil_div(tiles * splits, slots) * (per_split + kFill + (splits > 1 ? kSum : 0));
    if (time < best_time) best_time = time, best = {splits, static_cast<int32_t>(per_split)};
  }
  return best;
}

}  // namespace culebra::tile_plan

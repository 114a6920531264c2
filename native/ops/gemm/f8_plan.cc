// How the products with e4m3 tokens are cut up: pure functions of the shapes and the device.
#include <algorithm>

#include "abi/call.h"
#include "backends/backend.h"
#include "ops/gemm/fp8_gemm.h"
#include "ops/gemm/hopper/hopper_plan.h"
#include "ops/gemm/w4a8_gemm.h"

namespace culebra {
namespace {

using namespace tile_plan;

// The smallest tile that holds m, or the one with which the last of its waves of blocks is done first.
const TileChoice& choose_tile(const TileChoice (&tiles)[4], int64_t m, int64_t column_tiles, int64_t multiprocessors) {
  for (int i = 0; i < 3; ++i)
    if (m <= tiles[i].tokens) return tiles[i];
  const auto time = [&](const TileChoice& t) {
    return ceil_div(ceil_div(m, t.tokens) * column_tiles, multiprocessors * t.blocks_per_sm) * t.tokens * t.blocks_per_sm;
  };
  return time(tiles[2]) < time(tiles[3]) ? tiles[2] : tiles[3];
}

F8Plan plan(const TileChoice (&tiles)[4], int64_t m, int64_t column_tiles, int64_t tile_columns, int64_t slices, bool batch_invariant,
            const DeviceCaps& caps, std::string* reason) {
  // batch_invariant: one tile for every m, k cut as for one row of tiles.
  const TileChoice& tile = batch_invariant ? tiles[1] : choose_tile(tiles, m, column_tiles, caps.multiprocessors);
  const int64_t blocks = ceil_div(m, tile.tokens) * column_tiles;
  const Split split = split_cluster(batch_invariant ? column_tiles : blocks, int64_t{caps.multiprocessors} * tile.blocks_per_sm, slices);
  F8Plan plan;
  plan.tile_tokens = tile.tokens;
  plan.splits = split.splits;
  plan.slices_per_split = split.slices_per_split;
  *reason = format("wgmma and tensor copies; %d x %lld tiles%s: %lld blocks for %d SMs; ", tile.tokens, static_cast<long long>(tile_columns),
                   batch_invariant ? " (one tile and one order of k for every M: batch invariant)" : "", static_cast<long long>(blocks),
                   caps.multiprocessors);
  *reason += split.splits == 1 ? std::string("k in one piece")
                               : format("k shared by the %d blocks of a cluster, %d rows each", split.splits, split.slices_per_split * 128);
  return plan;
}

}  // namespace

void require_wgmma(const Call& call) {
  const DeviceCaps& caps = call.caps();
  if (caps.backend == CUL_BACKEND_CUDA && (caps.compute_major != 9 || caps.compute_minor != 0))
    call.refuse(CUL_ARCH, "the device is %s of compute capability %d.%d; the kernel needs 9.0 (wgmma)", caps.name.c_str(), caps.compute_major,
                caps.compute_minor);
}

F8Plan plan_fp8_gemm(const Fp8GemmParams& p, bool batch_invariant, const DeviceCaps& caps, std::string* reason) {
  static constexpr TileChoice kTiles[] = {hopper_choice<HopperF8Tile16>, hopper_choice<HopperF8Tile64>, hopper_choice<HopperF8Tile128>,
                                          hopper_choice<HopperF8Tile256>};
  F8Plan result = plan(kTiles, p.m, ceil_div(p.n, kFp8Block), kFp8Block, ceil_div(p.k, kFp8Block), batch_invariant, caps, reason);
  result.copies_a = p.m > 1 && !copy_engine_takes(p.lda, 16);
  result.copies_b = p.n > 1 && !copy_engine_takes(p.ldb, 16);
  if (p.m == 0) return result;
  result.b_offset = result.copies_a ? align256(p.m * p.k) : 0;
  result.workspace_bytes = result.b_offset + (result.copies_b ? align256(p.n * p.k) : 0);
  if (result.copies_a || result.copies_b)
    *reason += format("; rows of %s are copied to multiples of 16 bytes first", result.copies_a ? result.copies_b ? "a and b" : "a" : "b");
  return result;
}

F8Plan plan_w4a8_gemm(const W4A8GemmParams& p, bool batch_invariant, const DeviceCaps& caps, std::string* reason) {
  static constexpr TileChoice kTiles[] = {hopper_choice<HopperInt4F8Tile8>, hopper_choice<HopperInt4F8Tile32>, hopper_choice<HopperInt4F8Tile64>,
                                          hopper_choice<HopperInt4F8Tile128>};
  constexpr int64_t kColumns = 4 * kColumnBlock;
  // A tile holds both halves of its columns for silu_mul, where they are whole blocks.
  const bool gated = p.epilogue == CUL_EPILOGUE_SILU_MUL, paired = gated && p.n % (2 * kColumnBlock) == 0;
  const int64_t column_tiles = paired ? ceil_div(p.n / 2, kColumns / 2) : ceil_div(p.n_padded, kColumns);
  F8Plan result = plan(kTiles, p.m, column_tiles, kColumns, p.k_padded / kW4A8Group, batch_invariant, caps, reason);
  result.copies_a = (p.m > 1 && !copy_engine_takes(p.lda, 16)) || p.k % 16 != 0;
  result.fused = !gated || paired;
  if (p.m == 0) return result;
  result.sums_offset = result.copies_a ? align256(p.m * ceil_div(p.k, 16) * 16) : 0;
  result.workspace_bytes = result.sums_offset + (result.fused ? 0 : align256(p.m * p.n_padded * 4));
  if (result.copies_a) *reason += "; rows of a are copied to multiples of 16 bytes first";
  if (!result.fused) *reason += "; a second kernel finishes c: the halves of N for silu_mul are not whole blocks of 64 columns";
  return result;
}

}  // namespace culebra

// How the tensor-core products are cut up: pure functions of the shapes and the number of SMs.
#include <algorithm>

#include "abi/status.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/tile_gemm.h"
#include "ops/gemm/w4a16_gemm.h"

namespace culebra {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr uint64_t align256(int64_t bytes) { return static_cast<uint64_t>(ceil_div(bytes, 256)) * 256; }

struct TileChoice {
  int32_t tokens, k_warps, blocks_per_sm;
};
template <class Tile>
constexpr TileChoice choice{Tile::kTokens, Tile::kKWarps, Tile::kBlocksPerSm};

// The tile with the fewest rows that holds m, or the largest.
template <size_t N>
const TileChoice& smallest_holding(const TileChoice (&tiles)[N], int64_t m) {
  for (const TileChoice& t : tiles)
    if (m <= t.tokens) return t;
  return tiles[N - 1];
}

struct Split {
  int32_t splits, slices_per_split;
};
// As many splits of k as fill one wave of blocks, each with at least two pipeline stages of work.
Split split_k(int64_t blocks, int64_t slots, int64_t slices, int64_t k_warps) {
  if (slices == 0) return {1, 0};
  const int64_t wanted = std::clamp<int64_t>(slots / std::max<int64_t>(blocks, 1), 1, std::max<int64_t>(slices / (2 * k_warps), 1));
  const int64_t per_split = ceil_div(ceil_div(slices, wanted), k_warps) * k_warps;
  return {static_cast<int32_t>(ceil_div(slices, per_split)), static_cast<int32_t>(per_split)};
}

}  // namespace

W4A16Plan plan_w4a16_gemm(int64_t m, int64_t n, int64_t n_padded, int64_t k_padded, int32_t epilogue, bool has_perm,
                          bool batch_invariant, int multiprocessors, std::string* reason) {
  static constexpr TileChoice kTiles[] = {choice<Int4Tile8>, choice<Int4Tile16>, choice<Int4Tile32>, choice<Int4Tile64>,
                                          choice<Int4Tile128>};
  const TileChoice& tile = batch_invariant ? kTiles[4] : smallest_holding(kTiles, m);
  const int64_t slices = k_padded / kSliceRows, column_tiles = ceil_div(n_padded, 2 * kColumnBlock);
  const int64_t blocks = ceil_div(m, tile.tokens) * column_tiles;
  const Split split = batch_invariant ? Split{1, static_cast<int32_t>(slices)}
                                      : split_k(blocks, int64_t{multiprocessors} * tile.blocks_per_sm, slices, tile.k_warps);
  const bool paired = epilogue != CUL_EPILOGUE_SILU_MUL || n % (2 * kColumnBlock) == 0;

  W4A16Plan plan;
  plan.tile_tokens = tile.tokens;
  plan.splits = split.splits;
  plan.slices_per_split = split.slices_per_split;
  plan.gather = has_perm;
  plan.fused = split.splits == 1 && paired;
  if (m == 0) return plan;
  plan.partials_offset = has_perm ? align256(m * k_padded * 2) : 0;
  plan.workspace_bytes = plan.partials_offset + (plan.fused ? 0 : align256(m * n_padded * 4 * plan.splits));
  *reason = format("%d x 128 tiles%s: %lld blocks for %d SMs; ", plan.tile_tokens,
                   batch_invariant ? " (one tile for every M: batch invariant)" : "", static_cast<long long>(blocks), multiprocessors);
  *reason += plan.splits > 1 ? format("k in %d splits of %d rows to fill them", plan.splits, plan.slices_per_split * kSliceRows)
                             : std::string("k in one piece");
  if (!plan.fused) *reason += paired ? "; a second kernel adds the splits and finishes c"
                                     : "; a second kernel finishes c: the halves of N for silu_mul are not whole blocks of 64 columns";
  if (plan.gather) *reason += "; a's columns are permuted first (act-order)";
  return plan;
}

GemmPlan plan_gemm(int64_t m, int64_t n, int64_t k, DType dtype, bool batch_invariant, int multiprocessors, std::string* reason) {
  static constexpr TileChoice kTiles[] = {choice<HalfTile16>, choice<HalfTile128>};
  GemmPlan plan;
  if (dtype == DType::f32) {
    *reason = "64 x 64 tiles of FMAs (f32 uses no TF32); k in one piece";
    return plan;
  }
  const TileChoice& tile = batch_invariant ? kTiles[1] : smallest_holding(kTiles, m);
  const int64_t slices = ceil_div(k, kSliceRows), column_tiles = ceil_div(n, 2 * kColumnBlock);
  const int64_t blocks = ceil_div(m, tile.tokens) * column_tiles;
  const Split split = batch_invariant ? Split{1, static_cast<int32_t>(slices)}
                                      : split_k(blocks, int64_t{multiprocessors} * tile.blocks_per_sm, slices, tile.k_warps);
  plan.tile_tokens = tile.tokens;
  plan.splits = split.splits;
  plan.slices_per_split = split.slices_per_split;
  if (plan.splits > 1) plan.workspace_bytes = align256(m * ceil_div(n, kColumnBlock) * kColumnBlock * 4 * plan.splits);
  *reason = format("%d x 128 tiles%s: %lld blocks for %d SMs; ", plan.tile_tokens,
                   batch_invariant ? " (one tile for every M: batch invariant)" : "", static_cast<long long>(blocks), multiprocessors);
  *reason += plan.splits > 1 ? format("k in %d splits of %d rows to fill them; a second kernel adds them and finishes c",
                                      plan.splits, plan.slices_per_split * kSliceRows)
                             : std::string("k in one piece");
  return plan;
}

}  // namespace culebra

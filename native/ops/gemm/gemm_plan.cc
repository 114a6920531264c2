// How the tensor-core products are cut up: pure functions of the shapes and the number of SMs.
#include <algorithm>

#include "abi/status.h"
#include "backends/backend.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/hopper/hopper_plan.h"
#include "ops/gemm/w4a16_gemm.h"

namespace culebra {
namespace {

using namespace tile_plan;

// Whether bulk copies can fetch the rows of a. One row needs no stride, but alone it must not be another design's than in a batch
// of its stride.
template <class Params>
bool rows_are_aligned(const Params& p) {
  return copy_engine_takes(p.lda, 8) || (p.m == 1 && !p.batch_invariant);
}

// The larger tile, unless the smaller one rounds a small m up to fewer rows.
const TileChoice& prefill_tile(const TileChoice& half, const TileChoice& whole, int64_t m) {
  return m <= 4 * whole.tokens && ceil_div(m, half.tokens) * half.tokens < ceil_div(m, whole.tokens) * whole.tokens ? half : whole;
}

template <class Plan>
std::string describe(const Plan& plan, const char* obstacle, int64_t tile_columns, int64_t blocks, bool batch_invariant,
                     const DeviceCaps& caps) {
  const bool hopper = plan.design == GemmDesign::hopper;
  std::string text = hopper ? std::string("wgmma and bulk copies; ") : format("mma.sync and cp.async (%s); ", obstacle);
  text += format("%d x %lld tiles%s: %lld blocks for %d SMs; ", plan.tile_tokens, ll(tile_columns),
                 batch_invariant ? " (one tile and one order of k for every M: batch invariant)" : "", ll(blocks), caps.multiprocessors);
  return text + (plan.splits == 1 ? std::string("k in one piece")
                 : hopper         ? format("k shared by the %d blocks of a cluster, %d rows each", plan.splits, plan.slices_per_split * kSliceRows)
                                  : format("k in %d splits of %d rows to fill them", plan.splits, plan.slices_per_split * kSliceRows));
}

}  // namespace

W4A16Plan plan_w4a16_gemm(const W4A16GemmParams& p, const DeviceCaps& caps, std::string* reason) {
  static constexpr TileChoice kMarlin[] = {choice<Int4Tile8>, choice<Int4Tile16>, choice<Int4Tile32>, choice<Int4Tile64>,
                                           choice<Int4Tile128>};
  static constexpr TileChoice kHopper[] = {hopper_choice<HopperInt4Tile8>, hopper_choice<HopperInt4Tile16>, hopper_choice<HopperInt4Tile32>,
                                           hopper_choice<HopperInt4Tile64>, hopper_choice<HopperInt4Tile128>};
  const int64_t slices = p.k_padded / kSliceRows;
  const bool halves = p.epilogue == CUL_EPILOGUE_SILU_MUL, paired = !halves || p.n % (2 * kColumnBlock) == 0;

  W4A16Plan plan;
  plan.gather = p.perm != nullptr;
  const char* const obstacle = not_hopper(caps, plan.gather || rows_are_aligned(p));
  plan.design = obstacle ? GemmDesign::marlin : GemmDesign::hopper;
  const bool hopper = plan.design == GemmDesign::hopper;

  // batch_invariant: the tile of 32 tokens for every m, k cut as for one row of tiles. It still decodes at the memory's speed.
  const auto& tiles = hopper ? kHopper : kMarlin;
  const TileChoice& tile = p.batch_invariant ? tiles[2] : hopper && p.m > 64 ? prefill_tile(tiles[3], tiles[4], p.m) : smallest_holding(tiles, p.m);
  const int64_t tile_columns = hopper ? kHopperInt4Columns : 2 * kColumnBlock;
  // A tile holds both halves of its columns for silu_mul.
  const int64_t column_tiles = hopper && halves && paired ? ceil_div(p.n / 2, tile_columns / 2) : ceil_div(p.n_padded, tile_columns);
  const int64_t blocks = ceil_div(p.m, tile.tokens) * column_tiles, slots = int64_t{caps.multiprocessors} * tile.blocks_per_sm;
  const Split split = hopper              ? split_cluster(p.batch_invariant ? column_tiles : blocks, slots, slices)
                      : p.batch_invariant ? Split{1, static_cast<int32_t>(slices)}
                                          : split_k(blocks, slots, slices, tile.k_warps);
  plan.tile_tokens = tile.tokens;
  plan.splits = split.splits;
  plan.slices_per_split = split.slices_per_split;
  plan.partial_sums = hopper ? 1 : split.splits;
  plan.fused = plan.partial_sums == 1 && paired;
  if (p.m == 0) return plan;
  plan.partials_offset = plan.gather ? align256(p.m * p.k_padded * 2) : 0;
  plan.workspace_bytes = plan.partials_offset + (plan.fused ? 0 : align256(p.m * p.n_padded * 4 * plan.partial_sums));

  *reason = describe(plan, obstacle, tile_columns, blocks, p.batch_invariant, caps);
  if (!plan.fused) *reason += paired ? "; a second kernel adds the splits and finishes c"
                                     : "; a second kernel finishes c: the halves of N for silu_mul are not whole blocks of 64 columns";
  if (plan.gather) *reason += "; a's columns are permuted first (act-order)";
  return plan;
}

GemmPlan plan_gemm(const GemmParams& p, const DeviceCaps& caps, std::string* reason) {
  static constexpr TileChoice kMarlin[] = {choice<HalfTile16>, choice<HalfTile128>};
  static constexpr TileChoice kHopper[] = {hopper_choice<HopperHalfTile16>, hopper_choice<HopperHalfTile128>, hopper_choice<HopperHalfTile256>};
  GemmPlan plan;
  if (p.dtype == DType::f32) {
    *reason = "64 x 64 tiles of FMAs (f32 uses no TF32); k in one piece";
    return plan;
  }
  const char* const obstacle = p.k == 0 ? "k is empty" : not_hopper(caps, rows_are_aligned(p) && (copy_engine_takes(p.ldb, 8) || p.n == 1));
  plan.design = obstacle ? GemmDesign::marlin : GemmDesign::hopper;
  const bool hopper = plan.design == GemmDesign::hopper;

  // batch_invariant: the tile of 128 tokens for every m, k cut as for one row of tiles.
  const TileChoice& tile = p.batch_invariant ? (hopper ? kHopper : kMarlin)[1]
                           : hopper && p.m > 128 ? prefill_tile(kHopper[1], kHopper[2], p.m)
                           : hopper              ? smallest_holding(kHopper, p.m)
                                                 : smallest_holding(kMarlin, p.m);
  const int64_t slices = ceil_div(p.k, kSliceRows), column_tiles = ceil_div(p.n, 2 * kColumnBlock);
  const int64_t blocks = ceil_div(p.m, tile.tokens) * column_tiles, slots = int64_t{caps.multiprocessors} * tile.blocks_per_sm;
  const Split split = hopper              ? split_cluster(p.batch_invariant ? column_tiles : blocks, slots, slices)
                      : p.batch_invariant ? Split{1, static_cast<int32_t>(slices)}
                                          : split_k(blocks, slots, slices, tile.k_warps);
  plan.tile_tokens = tile.tokens;
  plan.splits = split.splits;
  plan.slices_per_split = split.slices_per_split;
  if (plan.splits > 1 && !hopper) plan.workspace_bytes = align256(p.m * ceil_div(p.n, kColumnBlock) * kColumnBlock * 4 * plan.splits);
  *reason = describe(plan, obstacle, 2 * kColumnBlock, blocks, p.batch_invariant, caps);
  if (plan.splits > 1 && !hopper) *reason += "; a second kernel adds them and finishes c";
  return plan;
}

const char* not_for_library(const GemmParams& p) {
  if (p.batch_invariant) return "its sums depend on the number of rows";
  if (p.act != CUL_ACT_NONE) return "it has no such activation";
  if (p.m == 0 || p.n == 0 || p.k == 0) return "there is nothing to multiply";
  if (p.bias && p.out_dtype != p.dtype) return "its bias has the type of c";
  if ((p.m > 1 && (p.lda < p.k || p.ldc < p.n)) || (p.n > 1 && p.ldb < p.k)) return "its rows ascend without overlapping";
  if (p.dtype != DType::f32 && p.m <= HopperHalfTile16::kTokens) return "b is read at the memory's speed without it";
  return nullptr;
}

}  // namespace culebra

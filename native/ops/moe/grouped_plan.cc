// How the grouped products are cut up: a pure function of the shapes and the device. How many rows an expert has is known on the device
// alone: the plan takes them to be spread evenly, and reckons with as many tiles as the worst spread makes.
#include <algorithm>

#include "abi/status.h"
#include "backends/backend.h"
#include "ops/gemm/hopper/hopper_f8.h"
#include "ops/gemm/hopper/hopper_plan.h"
#include "ops/moe/grouped_gemm.h"
#include "ops/moe/grouped_tiles.h"

namespace culebra {

using namespace tile_plan;

namespace {

// Why the Hopper design does not take a product; null where it does.
const char* obstacle(const GroupedGemmParams& p, const DeviceCaps& caps) {
  const bool f8 = p.dtype == DType::f8e4m3;
  if (p.b.storage != CUL_EXPERTS_HALF && !f8) return "experts are dequantised in registers";
  if (p.k() == 0) return "k is empty";
  if (f8 && p.k() % 2) return "k is odd";
  if (f8 && p.gated() && p.columns() % 64) return "up begins within a block of 64 columns";
  if (std::max(p.rows, p.a_rows) > INT32_MAX || p.experts() * p.n() > INT32_MAX) return "coordinates beyond 31 bits";
  const int64_t word = f8 ? 16 : 8;  // elements of 16 bytes
  const auto takes = [&](int64_t stride, int64_t extent) { return extent <= 1 || copy_engine_takes(stride, word); };
  // One row needs no stride, but alone it must not be another design's than in a batch of its stride.
  const bool a_aligned = takes(p.lda, p.batch_invariant ? 2 : p.a_rows), b_aligned = takes(p.b.row_stride, p.n()) && takes(p.b.expert_stride, p.experts());
  return not_hopper(caps, a_aligned && b_aligned);
}

}  // namespace

GroupedPlan plan_grouped_gemm(const GroupedGemmParams& p, const DeviceCaps& caps, std::string* reason) {
  GroupedPlan plan;
  const int64_t used = std::min(p.experts(), p.rows);  // experts with rows, at most
  if (used == 0 || p.columns() == 0) return plan;
  const char* const why_not = obstacle(p, caps);
  plan.design = why_not ? GemmDesign::marlin : GemmDesign::hopper;
  const bool hopper = !why_not;
  const int64_t mean = ceil_div(p.rows, used);
  // 256 rows ask a quarter less of L2 than 128, and an expert's last tile then is made of as many as it needs.
  const int32_t few = 16, many = !hopper ? (p.b.storage == CUL_EXPERTS_HALF ? 128 : 64) : mean > 160 && !p.batch_invariant ? 256 : 128;
  static_assert(GroupedTile16::kTokens == 16 && HopperHalfTile16::kTokens == 16 && HopperF8Tile16::kTokens == 16);
  static_assert(GroupedTile64::kTokens == 64 && GroupedByteTile64::kTokens == 64 && GroupedHalfTile128::kTokens == 128);
  static_assert(HopperHalfTile128::kTokens == 128 && HopperF8Tile128::kTokens == 128);
  static_assert(HopperHalfTile256::kTokens == 256 && HopperF8Tile256::kTokens == 256);
  plan.tile_tokens = mean <= few && !p.batch_invariant ? few : many;
  // An expert's last tile may be almost empty.
  plan.row_tiles = (p.rows + used * (plan.tile_tokens - 1)) / plan.tile_tokens;
  plan.column_tiles = p.gated() ? ceil_div(p.columns(), kColumnBlock) : ceil_div(p.n(), 2 * kColumnBlock);
  plan.tiles_offset = align256((p.experts() + 1) * 4);
  plan.rows_offset = plan.tiles_offset + align256(plan.row_tiles * static_cast<int64_t>(sizeof(GroupedTile)));
  plan.row_scales_offset = plan.workspace_bytes = plan.rows_offset;
  if (hopper && p.gather) {
    plan.row_scales_offset += align256(p.rows * ceil_div(p.k() * static_cast<int64_t>(size_of(p.dtype)), 16) * 16);
    plan.workspace_bytes = plan.row_scales_offset + (p.a_scale ? align256(p.rows * ceil_div(p.k(), 128) * 4) : 0);
  }
  *reason = hopper ? std::string("wgmma and tensor copies") : format("mma.sync and cp.async (%s)", why_not);
  *reason += format("; %d x %s tiles of one expert's rows (%lld rows for each of %lld experts if spread evenly)%s: up to %lld x %lld blocks for %d "
                    "SMs; k in one piece",
                    plan.tile_tokens, p.gated() ? "(64 gate + 64 up)" : "128", ll(mean), ll(used),
                    p.batch_invariant ? ", the same for every number of rows (batch invariant)" : "", ll(plan.row_tiles), ll(plan.column_tiles),
                    caps.multiprocessors);
  if (hopper && p.gather) *reason += "; rows are gathered first";
  return plan;
}

}  // namespace culebra

// How the grouped products are cut up: a pure function of the shapes and the device. How many rows an expert has is known on the device
// alone: the plan takes them to be spread evenly, and reckons with as many tiles as the worst spread makes.
#include <algorithm>

#include "abi/status.h"
#include "backends/backend.h"
#include "ops/gemm/hopper/hopper_plan.h"
#include "ops/moe/grouped_gemm.h"
#include "ops/moe/grouped_tiles.h"

namespace culebra {

using namespace tile_plan;

namespace {

// Why the Hopper design does not take a product; null where it does.
const char* obstacle(const GroupedGemmParams& p, const DeviceCaps& caps) {
  if (p.b.storage != CUL_EXPERTS_HALF) return "experts are dequantised in registers";
  if (p.k() == 0) return "k is empty";
  if (std::max(p.rows, p.a_rows) > INT32_MAX || p.experts() * p.n() > INT32_MAX) return "coordinates beyond 31 bits";
  const bool a_aligned = p.lda % 8 == 0 || p.a_rows <= 1;
  const bool b_aligned = (p.b.row_stride % 8 == 0 || p.n() <= 1) && (p.b.expert_stride % 8 == 0 || p.experts() <= 1);
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
  const int32_t large = p.b.storage == CUL_EXPERTS_HALF ? GroupedHalfTile128::kTokens : GroupedTile64::kTokens;
  static_assert(HopperHalfTile16::kTokens == GroupedTile16::kTokens && HopperHalfTile128::kTokens == GroupedHalfTile128::kTokens);
  plan.tile_tokens = mean <= GroupedTile16::kTokens && !p.batch_invariant ? GroupedTile16::kTokens : large;
  // An expert's last tile may be almost empty.
  plan.row_tiles = (p.rows + used * (plan.tile_tokens - 1)) / plan.tile_tokens;
  plan.column_tiles = p.gated() ? ceil_div(p.columns(), kColumnBlock) : ceil_div(p.n(), 2 * kColumnBlock);
  plan.tiles_offset = align256((p.experts() + 1) * 4);
  plan.rows_offset = plan.tiles_offset + align256(plan.row_tiles * static_cast<int64_t>(sizeof(GroupedTile)));
  plan.workspace_bytes = plan.rows_offset + (hopper && p.gather ? align256(p.rows * ceil_div(p.k(), 8) * 16) : 0);
  const auto ll = [](int64_t v) { return static_cast<long long>(v); };
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

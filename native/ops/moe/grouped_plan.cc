// How the grouped products are cut up: a pure function of the shapes and the device. How many rows an expert has is known on the device
// alone: the plan takes them to be spread evenly, and reckons with as many tiles as the worst spread makes.
#include <algorithm>

#include "abi/status.h"
#include "backends/backend.h"
#include "ops/gemm/tile/tile_plan.h"
#include "ops/moe/grouped_gemm.h"
#include "ops/moe/grouped_tiles.h"

namespace culebra {

using namespace tile_plan;

GroupedPlan plan_grouped_gemm(const GroupedGemmParams& p, const DeviceCaps& caps, std::string* reason) {
  GroupedPlan plan;
  const int64_t used = std::min(p.experts(), p.rows);  // experts with rows, at most
  if (used == 0 || p.columns() == 0) return plan;
  const int64_t mean = ceil_div(p.rows, used);
  const int32_t large = p.b.storage == CUL_EXPERTS_HALF ? GroupedHalfTile128::kTokens : GroupedTile64::kTokens;
  plan.tile_tokens = mean <= GroupedTile16::kTokens && !p.batch_invariant ? GroupedTile16::kTokens : large;
  // An expert's last tile may be almost empty.
  plan.row_tiles = (p.rows + used * (plan.tile_tokens - 1)) / plan.tile_tokens;
  plan.column_tiles = p.gated() ? ceil_div(p.columns(), kColumnBlock) : ceil_div(p.n(), 2 * kColumnBlock);
  plan.tiles_offset = align256((p.experts() + 1) * 4);
  plan.workspace_bytes = plan.tiles_offset + align256(plan.row_tiles * static_cast<int64_t>(sizeof(GroupedTile)));
  const auto ll = [](int64_t v) { return static_cast<long long>(v); };
  *reason = format("mma.sync and cp.async; %d x %s tiles of one expert's rows (%lld rows for each of %lld experts if spread evenly)%s: up to "
                   "%lld x %lld blocks for %d SMs; k in one piece",
                   plan.tile_tokens, p.gated() ? "(64 gate + 64 up)" : "128", ll(mean), ll(used),
                   p.batch_invariant ? ", the same for every number of rows (batch invariant)" : "", ll(plan.row_tiles), ll(plan.column_tiles),
                   caps.multiprocessors);
  return plan;
}

}  // namespace culebra

#include "ops/moe/moe_dispatch.h"

#include <algorithm>

#include "device/launch.h"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256;

// Computes: inverse[slot] = the slot's row in the part of its rank, -2 beyond it; row_ids of the rows that a slot has, and of the others;
//           counts.
// Shapes:   ids [T,k], offsets [ranks + 1], inverse [T k] -> inverse [T k], row_ids [ranks capacity], counts [ranks].
// Layouts:  ids of any row stride, the others compact.
// Tiles:    a slot, a row and a rank a thread; grid-stride.
// Shared:   none.
// Order:    none: no two slots have one row.
// Numerics: integers.
// Needs:    sm_80. Limit: latency; 12 T k + 4 ranks capacity bytes.
// Source:   README.md, "Dispatch to ranks".
__global__ void __launch_bounds__(kThreads) place_rows(MoeDispatchParams p) {
  const int64_t step = int64_t{gridDim.x} * kThreads, thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (int64_t slot = thread; slot < p.align.slots(); slot += step) p.place_slot(slot);
  for (int64_t row = thread; row < p.rows(); row += step) p.clear_row(row);
  for (int64_t rank = thread; rank < p.ranks(); rank += step) p.counts[rank] = static_cast<int32_t>(p.count(rank));
}

}  // namespace

void moe_dispatch(const MoeDispatchParams& p, NativeStream stream) {
  if (p.validate) validate("moe_dispatch", p, stream);
  moe_align(p.align, stream);
  const int64_t most = std::max({p.align.slots(), p.rows(), p.ranks()});
  launch(place_rows, dim3(static_cast<unsigned>(std::min<int64_t>((most + kThreads - 1) / kThreads, 1024))), dim3(kThreads), 0, stream, p);
  moe_permute(p.permute, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/moe/moe_mlp_many.h"

#include "device/launch.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256;

// Computes: gather[inverse[slot]] = slot / k: which token each sorted row comes of.
// Shapes:   inverse [slots] -> gather [slots]; rows that no slot has stay as they are.
// Layouts:  compact.
// Tiles:    a slot a thread.
// Shared:   none.
// Order:    none: every row has one slot.
// Numerics: integers.
// Needs:    sm_80. Limit: 8 bytes a slot.
// Source:   the inverse permutation.
__global__ void __launch_bounds__(kThreads) gather_tokens(const int32_t* inverse, int32_t* gather, int32_t slots, int32_t k) {
  const int64_t slot = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (slot >= slots) return;
  if (const int32_t row = inverse[slot]; row >= 0) gather[row] = static_cast<int32_t>(slot) / k;
}

}  // namespace

void moe_mlp_many(const MoeMlpMany& m, NativeStream stream) {
  if (m.any_slots) {
    const int64_t slots = m.align.slots();
    moe_align(m.align, stream);
    launch(gather_tokens, dim3(static_cast<unsigned>((slots + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream, m.align.inverse, m.gather,
           static_cast<int32_t>(slots), static_cast<int32_t>(m.align.k));
    moe_grouped_gemm(m.up, stream);
    moe_grouped_gemm(m.down, stream);
  }
  moe_combine(m.combine, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/moe/moe_mlp_many.h"

#include "device/launch.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256;

// Computes: gather[inverse[slot]] = slot / k: which token each sorted row comes of; zeros in the rows of hidden that no slot has, as far as
//           somebody reads them.
// Shapes:   inverse [slots] -> gather [slots], hidden [slots, words of 16 bytes].
// Layouts:  compact.
// Tiles:    a slot a thread; then 16 bytes of hidden a thread, grid-stride.
// Shared:   none.
// Order:    none: every row has one slot.
// Numerics: integers.
// Needs:    sm_80. Limit: 8 bytes a slot.
// Source:   the inverse permutation.
__global__ void __launch_bounds__(kThreads)
    gather_tokens(const int32_t* inverse, int32_t* gather, int32_t slots, int32_t k, const int64_t* used, uint4* hidden, int64_t words, int32_t clear) {
  const int64_t slot = int64_t{blockIdx.x} * kThreads + threadIdx.x, step = static_cast<int64_t>(gridDim.x) * kThreads;
  if (slot < slots)
    if (const int32_t row = inverse[slot]; row >= 0) gather[row] = static_cast<int32_t>(slot) / k;
  const int64_t first = *used, end = min(first + clear, int64_t{slots});
  for (int64_t i = first * words + slot; i < end * words; i += step) hidden[i] = make_uint4(0, 0, 0, 0);
}

}  // namespace

void moe_mlp_many(const MoeMlpMany& m, NativeStream stream) {
  if (m.any_slots) {
    const int64_t slots = m.align.slots();
    moe_align(m.align, stream);
    launch(gather_tokens, dim3(static_cast<unsigned>((slots + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream, m.align.inverse, m.gather,
           static_cast<int32_t>(slots), static_cast<int32_t>(m.align.k), m.align.offsets + m.align.local_experts, static_cast<uint4*>(m.hidden),
           m.hidden_pitch / 8, m.clear);
    if (m.quantized) quantize_activations(m.quantize_x, stream);
    moe_grouped_gemm(m.up, stream);
    if (m.quantized) quantize_activations(m.quantize_hidden, stream);
    moe_grouped_gemm(m.down, stream);
  }
  moe_combine(m.combine, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

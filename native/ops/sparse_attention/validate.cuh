// CUL_OP_VALIDATE: index tensors that lead outside fail the device before the kernels read by them.
#pragma once
#include "device/launch.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED
template <class Params>
void validate_indices(const Params& p, NativeStream stream) {
  if (p.validate) stream->enqueue([p] { p.require_valid(); });
}
#else
// Computes: nothing; traps where a sequence's index tensors lead outside
// Shapes:   as the operator has them
// Layouts:  as the operator has them
// Tiles:    one block, a thread a sequence
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of the indices; a debug check
// Source:   ours
template <class Params>
__global__ void validate_sequences_kernel(Params p) {
  for (int64_t b = threadIdx.x; b < p.sequences; b += blockDim.x)
    if (!p.sequence_valid(b)) __trap();  // the only way a kernel can fail its device
}
template <class Params>
void validate_indices(const Params& p, NativeStream stream) {
  if (p.validate) launch(validate_sequences_kernel<Params>, dim3(1), dim3(256), 0, stream, p);
}
#endif

}  // namespace culebra::CUL_DEVICE_NS

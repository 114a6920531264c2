// CUL_OP_VALIDATE: index tensors (abi/indices.h) are looked at before the kernels that read by them, and a bad one fails the device.
#pragma once
#include "abi/indices.h"
#include "device/launch.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

template <class P>
void validate(const char* op, const P& p, NativeStream stream) {
  stream->enqueue([op, p] { require_valid(op, p); });
}

#else

// A trap is the only way a kernel can fail its device.
//
// Computes: nothing; traps where an item of index tensors is not valid
// Shapes:   as the operator has them; `items` of them
// Layouts:  as the operator has them
// Tiles:    a thread every n-th item
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of the indices; a debug check
// Source:   ours
template <class P>
__global__ void validate_kernel(P p, int64_t items) {
  // Items are the host's to count.
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < items; i += int64_t{gridDim.x} * blockDim.x)
    if (!p.valid(i)) __trap();
}

template <class P>
void validate(const char*, const P& p, NativeStream stream) {
  if (const int64_t items = p.index_items(); items > 0) launch(validate_kernel<P>, dim3(64), dim3(128), 0, stream, p, items);
}

#endif

}  // namespace culebra::CUL_DEVICE_NS

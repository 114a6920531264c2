// What CUL_OP_VALIDATE adds to operators that take an inverse.
#pragma once
#include "device/launch.h"
#include "ops/moe/moe_permute.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

inline void queue_inverse_check(const char* op, const int32_t* inverse, int64_t slots, int64_t rows, int32_t lowest, NativeStream stream) {
  stream->enqueue([=] { validate_inverse(op, inverse, slots, rows, lowest); });
}

#else

// A trap is the only way a kernel can fail its device.
//
// Computes: nothing; traps where a slot's row is below `lowest` or not below `rows`
// Shapes:   inverse i32 [slots]
// Layouts:  contiguous
// Tiles:    one block, a thread a slot
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of inverse; a debug check
// Source:   ours
static __global__ void __launch_bounds__(256) trap_on_bad_inverse(const int32_t* inverse, int64_t slots, int64_t rows, int32_t lowest) {
  for (int64_t slot = threadIdx.x; slot < slots; slot += blockDim.x)
    if (inverse[slot] < lowest || inverse[slot] >= rows) __trap();
}
inline void queue_inverse_check(const char*, const int32_t* inverse, int64_t slots, int64_t rows, int32_t lowest, NativeStream stream) {
  launch(trap_on_bad_inverse, dim3(1), dim3(256), 0, stream, inverse, slots, rows, lowest);
}

#endif

}  // namespace culebra::CUL_DEVICE_NS

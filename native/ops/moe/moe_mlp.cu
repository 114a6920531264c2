#include "ops/moe/moe_mlp.h"

#include "device/launch.h"

namespace culebra::CUL_DEVICE_NS {

// moe_decode_*.cu
void moe_decode_half(const MoeMlpOperands& p, NativeStream stream);
void moe_decode_f8(const MoeMlpOperands& p, NativeStream stream);
void moe_decode_int4(const MoeMlpOperands& p, NativeStream stream);

#if !CUL_EMULATED
// A trap is the only way a kernel can fail its device.
//
// Computes: nothing; traps where an id is neither -1 nor an expert
// Shapes:   ids i32 [T,k]
// Layouts:  rows by their stride
// Tiles:    one block, a thread a slot
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of the ids; a debug check
// Source:   ours
__global__ void __launch_bounds__(256) validate_mlp_ids(const __grid_constant__ MoeMlpOperands p) {
  for (int64_t slot = threadIdx.x; slot < p.tokens * p.slots_per_token; slot += blockDim.x)
    if (const int32_t id = p.ids[slot / p.slots_per_token * p.ids_stride + slot % p.slots_per_token]; id < -1 || id >= p.experts) __trap();
}
#endif

void moe_mlp(const MoeMlpParams& p, NativeStream stream) {
#if CUL_EMULATED
  if (p.validate && !p.routed) stream->enqueue([p] { validate_moe_mlp(p); });
#endif
  if (!p.decode.suits) {
    if (p.routed) moe_route(p.route, stream);
    return moe_mlp_many(p.many, stream);
  }
#if !CUL_EMULATED
  if (p.validate && !p.routed) launch(validate_mlp_ids, dim3(1), dim3(256), 0, stream, static_cast<const MoeMlpOperands&>(p));
#endif
  switch (p.w13.storage) {
    case CUL_EXPERTS_HALF: return moe_decode_half(p, stream);
    case CUL_EXPERTS_F8: return moe_decode_f8(p, stream);
    default: return moe_decode_int4(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

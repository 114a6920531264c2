#include "ops/moe/moe_mlp.h"

#include "device/launch.h"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {

// moe_decode_*.cu
void moe_decode_half(const MoeMlpOperands& p, NativeStream stream);
void moe_decode_f8(const MoeMlpOperands& p, NativeStream stream);
void moe_decode_int4(const MoeMlpOperands& p, NativeStream stream);

void moe_mlp(const MoeMlpParams& p, NativeStream stream) {
  if (p.validate && !p.routed) validate("moe_mlp", p.indices(), stream);
  if (!p.decode.suits) {
    if (p.routed) moe_route(p.route, stream);
    return moe_mlp_many(p.many, stream);
  }
  switch (p.w13.storage) {
    case CUL_EXPERTS_HALF: return moe_decode_half(p, stream);
    case CUL_EXPERTS_F8: return moe_decode_f8(p, stream);
    default: return moe_decode_int4(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

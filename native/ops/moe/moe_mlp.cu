#include "ops/moe/moe_mlp.h"

#include "device/launch.h"

namespace culebra::CUL_DEVICE_NS {

void moe_mlp(const MoeMlpParams& p, NativeStream stream) {
#if CUL_EMULATED
  if (p.validate) stream->enqueue([p] { validate_moe_mlp(p); });
#endif
  moe_mlp_many(p.many, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

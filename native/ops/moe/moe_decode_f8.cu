#include "ops/moe/moe_decode.cuh"

namespace culebra::CUL_DEVICE_NS {

void moe_decode_f8(const MoeMlpOperands& p, NativeStream stream) { launch_moe_decode<CUL_EXPERTS_F8>(p, stream); }

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/moe/grouped_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

void grouped_int4(const GroupedGemmParams& p, NativeStream stream) {
  const bool few = p.plan.tile_tokens == GroupedTile16::kTokens;
  if (p.dtype == DType::f16)
    few ? launch_grouped<GroupedTile16, ExpertInt4<half_t>>(p, stream) : launch_grouped<GroupedTile64, ExpertInt4<half_t>>(p, stream);
  else
    few ? launch_grouped<GroupedTile16, ExpertInt4<bfloat16_t>>(p, stream) : launch_grouped<GroupedTile64, ExpertInt4<bfloat16_t>>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

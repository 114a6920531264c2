#include "ops/moe/grouped_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

void grouped_half(const GroupedGemmParams& p, NativeStream stream) {
  const bool few = p.plan.tile_tokens == GroupedTile16::kTokens;
  if (p.dtype == DType::f16)
    few ? launch_grouped<GroupedTile16, ExpertHalf<half_t>>(p, stream) : launch_grouped<GroupedHalfTile128, ExpertHalf<half_t>>(p, stream);
  else
    few ? launch_grouped<GroupedTile16, ExpertHalf<bfloat16_t>>(p, stream) : launch_grouped<GroupedHalfTile128, ExpertHalf<bfloat16_t>>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

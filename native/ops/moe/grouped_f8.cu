#include "ops/moe/grouped_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

void grouped_f8(const GroupedGemmParams& p, NativeStream stream) {
  const bool few = p.plan.tile_tokens == GroupedTile16::kTokens;
  if (p.dtype == DType::f16)
    few ? launch_grouped<GroupedTile16, ExpertF8<half_t>>(p, stream) : launch_grouped<GroupedTile64, ExpertF8<half_t>>(p, stream);
  else if (p.dtype == DType::bf16)
    few ? launch_grouped<GroupedTile16, ExpertF8<bfloat16_t>>(p, stream) : launch_grouped<GroupedTile64, ExpertF8<bfloat16_t>>(p, stream);
  else
    few ? launch_grouped<GroupedTile16, ExpertF8Bytes>(p, stream) : launch_grouped<GroupedByteTile64, ExpertF8Bytes>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/gemm/tile/byte_formats.cuh"
#include "ops/gemm/quantized_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

void w6a16_gemm(const QuantizedGemmParams& p, NativeStream stream) {
  if (p.m == 0) return;
  if (p.dtype == DType::f16)
    run_quantized(p, GroupedWeights<half_t, Int6Format<half_t>>{packed_source(p)}, stream);
  else
    run_quantized(p, GroupedWeights<bfloat16_t, Int6Format<bfloat16_t>>{packed_source(p)}, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

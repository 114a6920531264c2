#include "ops/gemm/tile/int6_byte_weights.cuh"
#include "ops/gemm/quantized_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

void w6a8_gemm(const QuantizedGemmParams& p, NativeStream stream) {
  if (p.m == 0) return;
  run_quantized(p, Int6ByteWeights{packed_source(p), p.a_scale}, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

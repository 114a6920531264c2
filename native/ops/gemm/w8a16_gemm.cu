#include "ops/gemm/tile/byte_formats.cuh"
#include "ops/gemm/quantized_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

template <class T, class Format>
void run(const QuantizedGemmParams& p, NativeStream stream) {
  run_quantized(p, GroupedWeights<T, Format>{packed_source(p)}, stream);
}

}  // namespace

void w8a16_gemm(const QuantizedGemmParams& p, NativeStream stream) {
  if (p.m == 0) return;
  if (p.dtype == DType::f16)
    p.floats ? run<half_t, F8Format<half_t>>(p, stream) : run<half_t, Int8Format<half_t>>(p, stream);
  else
    p.floats ? run<bfloat16_t, F8Format<bfloat16_t>>(p, stream) : run<bfloat16_t, Int8Format<bfloat16_t>>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "device/mma_sparse.h"
#include "ops/gemm/tile/int4_dequantize.cuh"
#include "ops/gemm/quantized_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Sparse24Fragments (sparse24_layout.h) as operand A of mma.sp.m16n8k32: two steps of 16 k make one product of 32, with the registers of a
// dense product of 16. A lane reads 16 bytes of values for 32 k, and 16 bytes of positions for 64.
template <class T>
struct Sparse24Format {
  static constexpr int kBits = 3;
  static constexpr bool kZeros = false;
  static constexpr float kScale = 1;
  static constexpr int kMostTokenTiles = 4, kPositionsAt = 64 * 64 / 4;

  uint32_t before[kMostTokenTiles][2];  // the tokens of the even step
  uint4 values, positions;

  CUL_DEVICE_FN void load(const unsigned char* slice, int step, int lane) {
    if (step == 0) positions = *reinterpret_cast<const uint4*>(slice + kPositionsAt + lane * 16);
    if (step % 2) values = *reinterpret_cast<const uint4*>(slice + (step / 2 * 32 + lane) * 16);
  }

  template <int kTokenTiles>
  CUL_DEVICE_FN void multiply(int step, const uint32_t (&b)[kTokenTiles][2], float (&sum)[4][kTokenTiles][4]) {
    static_assert(kTokenTiles <= kMostTokenTiles);
    if (step % 2 == 0) {
#pragma unroll
      for (int i = 0; i < kTokenTiles; ++i) before[i][0] = b[i][0], before[i][1] = b[i][1];
      return;
    }
    constexpr uint32_t kBias = int4_magic<T> | 0x00080008u;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      uint32_t a[4];
      dequantize<T>(component(values, w), kBias, kBias, a);
      const uint32_t metadata = component(positions, step / 2 * 2 + w / 2);
#pragma unroll
      for (int i = 0; i < kTokenTiles; ++i) {
        const uint32_t tokens[4] = {before[i][0], before[i][1], b[i][0], b[i][1]};
        if (w % 2 == 0)
          mma_sparse_m16n8k32<T, 0>(sum[w][i], a, tokens, metadata);
        else
          mma_sparse_m16n8k32<T, 1>(sum[w][i], a, tokens, metadata);
      }
    }
  }
};

}  // namespace

void w4a16_sparse24_gemm(const QuantizedGemmParams& p, NativeStream stream) {
  if (p.m == 0) return;
  if (p.dtype == DType::f16)
    run_quantized(p, GroupedWeights<half_t, Sparse24Format<half_t>>{packed_source(p)}, stream);
  else
    run_quantized(p, GroupedWeights<bfloat16_t, Sparse24Format<bfloat16_t>>{packed_source(p)}, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

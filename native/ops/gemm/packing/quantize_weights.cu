#include "device/launch.h"
#include "device/warp.h"
#include "ops/gemm/packing/quantize_weights.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kWarps = 8;

// Computes: q, scale and zero point of every group of w (the formulas are in quantize_weights.h).
// Shapes:   w [n, k] -> q u8 [n, k], scales [n, groups], zeros [n, groups] where asymmetric.
// Layouts:  row-major, any row strides.
// Tiles:    one group per warp, row i in lane i mod 32; 16 candidates, each one pass over the group.
// Shared:   none: a group is read again from L1.
// Order:    lane sums, then pairwise over lanes 16, 8, 4, 2, 1 apart: the order of the cpu backend.
// Numerics: f32, every operation rounded by itself.
// Needs:    sm_80. Load time: about 16 x 12 operations a weight.
// Source:   round to nearest with a search for the clipping of least squared error.
template <class W, class Scale>
__global__ void __launch_bounds__(32 * kWarps) quantize_kernel(QuantizeWeightsParams p) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + warp; i < p.n * p.groups; i += step) {
    const int64_t n = i / p.groups, g = i % p.groups, first = g * p.group;
    const int64_t rows = p.k - first < p.group ? p.k - first : p.group;
    const W* const w = static_cast<const W*>(p.w) + n * p.w_stride + first;
    float low = 0, high = 0;
    for (int64_t j = lane; j < rows; j += 32) {
      const float x = to_float(w[j]);
      low = x < low ? x : low;
      high = x > high ? x : high;
    }
    low = warp_min(low);
    high = warp_max(high);
    quantize::Grid best{};
    float least = 0;
    for (int c = 0; c < quantize::kRatios; ++c) {
      const quantize::Grid grid = quantize::grid<Scale>(low, high, quantize::ratio(c), p.bits, !p.zeros);
      float error = 0;
      for (int64_t j = lane; j < rows; j += 32) error = quantize::sum(error, quantize::squared_error(to_float(w[j]), grid, p.bits));
      error = warp_sum(error);
      if (c == 0 || error < least) best = grid, least = error;
    }
    uint8_t* const q = p.q + n * p.q_stride + first;
    for (int64_t j = lane; j < rows; j += 32) q[j] = static_cast<uint8_t>(quantize::quantized(to_float(w[j]), best, p.bits));
    if (lane == 0) {
      static_cast<Scale*>(p.scales)[n * p.scales_stride + g] = from_float<Scale>(best.scale);
      if (p.zeros) p.zeros[n * p.zeros_stride + g] = static_cast<uint8_t>(best.zero);
    }
  }
}

template <class W>
void run(const QuantizeWeightsParams& p, NativeStream stream) {
  const int64_t blocks = (p.n * p.groups + kWarps - 1) / kWarps;
  const dim3 grid(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)), block(32 * kWarps);
  if (p.scale_dtype == DType::f16)
    launch(quantize_kernel<W, half_t>, grid, block, 0, stream, p);
  else if (p.scale_dtype == DType::bf16)
    launch(quantize_kernel<W, bfloat16_t>, grid, block, 0, stream, p);
  else
    launch(quantize_kernel<W, float>, grid, block, 0, stream, p);
}

}  // namespace

void quantize_weights(const QuantizeWeightsParams& p, NativeStream stream) {
  if (p.n * p.groups == 0) return;
  if (p.w_dtype == DType::f16) return run<half_t>(p, stream);
  if (p.w_dtype == DType::bf16) return run<bfloat16_t>(p, stream);
  run<float>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

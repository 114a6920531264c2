#include <algorithm>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/packing/quantize_weights.h"

namespace culebra::cpu {
namespace {

using quantize::Grid;
using quantize::kLanes;

float group_error(const float* w, int64_t rows, Grid g, int bits) {
  float lane[kLanes] = {};
  for (int64_t i = 0; i < rows; i += kLanes) {
    const int64_t n = std::min<int64_t>(kLanes, rows - i);
    for (int64_t l = 0; l < n; ++l) lane[l] = quantize::sum(lane[l], quantize::squared_error(w[i + l], g, bits));
  }
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] = quantize::sum(lane[l], lane[l + half]);
  return lane[0];
}

template <class Scale>
Grid search(const float* w, int64_t rows, int bits, bool symmetric) {
  float low = 0, high = 0;
  for (int64_t i = 0; i < rows; ++i) {
    low = w[i] < low ? w[i] : low;
    high = w[i] > high ? w[i] : high;
  }
  Grid best{};
  float least = 0;
  for (int c = 0; c < quantize::kRatios; ++c) {
    const Grid g = quantize::grid<Scale>(low, high, quantize::ratio(c), bits, symmetric);
    const float error = group_error(w, rows, g, bits);
    if (c == 0 || error < least) best = g, least = error;
  }
  return best;
}

template <class W, class Scale>
void run(const QuantizeWeightsParams& p, ThreadPool& pool) {
  pool.parallel_for(p.n * p.groups, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> w(static_cast<size_t>(p.group));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / p.groups, g = i % p.groups, first = g * p.group, rows = std::min(p.group, p.k - first);
      const W* const source = static_cast<const W*>(p.w) + n * p.w_stride + first;
      for (int64_t j = 0; j < rows; ++j) w[static_cast<size_t>(j)] = to_float(source[j]);
      const Grid grid = search<Scale>(w.data(), rows, p.bits, !p.zeros);
      uint8_t* const q = p.q + n * p.q_stride + first;
      for (int64_t j = 0; j < rows; ++j) q[j] = static_cast<uint8_t>(quantize::quantized(w[static_cast<size_t>(j)], grid, p.bits));
      static_cast<Scale*>(p.scales)[n * p.scales_stride + g] = from_float<Scale>(grid.scale);
      if (p.zeros) p.zeros[n * p.zeros_stride + g] = static_cast<uint8_t>(grid.zero);
    }
  });
}

template <class W>
void run(const QuantizeWeightsParams& p, ThreadPool& pool) {
  switch (p.scale_dtype) {
    case DType::f16: return run<W, half_t>(p, pool);
    case DType::bf16: return run<W, bfloat16_t>(p, pool);
    default: return run<W, float>(p, pool);
  }
}

}  // namespace

void quantize_weights(const QuantizeWeightsParams& p, ThreadPool& pool) {
  switch (p.w_dtype) {
    case DType::f16: return run<half_t>(p, pool);
    case DType::bf16: return run<bfloat16_t>(p, pool);
    default: return run<float>(p, pool);
  }
}

}  // namespace culebra::cpu

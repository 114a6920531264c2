// The workspace of the 8- and 6-bit products on the cpu: the activations, as their kernel wants them, of as many rows as are worked on at once.
#pragma once
#include <algorithm>
#include <cstdint>

#include "ops/gemm/quantized_gemm.h"

namespace culebra::cpu {

// Activations share one f32 scale per row and block of k: a group of weights, or 128 of a longer one.
inline constexpr int kActivationBlock = 128;

struct QuantizedGemmWorkspace {
  int64_t rows;    // of activations at once
  int64_t blocks;  // of k
  int64_t block;   // values of k in one
  // Byte offsets: i16 (f8e4m3 weights: f32) x, rows x k_padded of them; f32 scales and i32 sums [blocks, rows].
  uint64_t x, scales, sums, bytes;
};

inline QuantizedGemmWorkspace quantized_gemm_workspace(const QuantizedGemmParams& p) {
  // Rows in steps of 96 (a multiple of every row tile), so many that they stay in the last-level cache.
  constexpr int64_t kCacheBytes = 8 << 20, kRowStep = 96;
  const int64_t element = p.floats ? 4 : 2;
  QuantizedGemmWorkspace w{};
  w.block = std::clamp<int64_t>(p.group, 1, kActivationBlock);
  w.blocks = (p.k_padded + w.block - 1) / w.block;
  w.rows = std::min(p.m, std::max<int64_t>(kCacheBytes / (p.k_padded * element + w.blocks * 8) / kRowStep, 1) * kRowStep);
  const auto array = [&](int64_t bytes) {
    const uint64_t offset = w.bytes;
    w.bytes += static_cast<uint64_t>(bytes + 63) / 64 * 64;
    return offset;
  };
  w.x = array(w.rows * p.k_padded * element);
  w.scales = array(w.rows * w.blocks * 4);
  w.sums = array(w.rows * w.blocks * 4);
  return w;
}

}  // namespace culebra::cpu

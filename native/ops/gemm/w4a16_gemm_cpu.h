// The workspace of w4a16_gemm on the cpu: the quantized activations of as many rows as are worked on at once.
#pragma once
#include <algorithm>
#include <cstdint>

namespace culebra::cpu {

// Activations become 16-bit integers, with one f32 scale per row and block of k: a group of weights, or 128 of a longer one.
inline constexpr int kMaxActivationBlock = 128;

struct W4A16Workspace {
  int64_t rows;    // of activations at once
  int64_t blocks;  // of k
  int64_t block;   // values of k in one
  // Byte offsets: i16 q, rows x k_padded of them; f32 scales and i32 sums [blocks, rows].
  uint64_t q, scales, sums, bytes;
};

constexpr W4A16Workspace w4a16_gemm_workspace(int64_t m, int64_t k_padded, int64_t group) {
  // Rows in steps of 96 (a multiple of every row tile), so many that they stay in the last-level cache.
  constexpr int64_t kCacheBytes = 8 << 20, kRowStep = 96;
  W4A16Workspace w{};
  w.block = std::clamp<int64_t>(group, 1, kMaxActivationBlock);
  w.blocks = (k_padded + w.block - 1) / w.block;
  const int64_t row_bytes = std::max<int64_t>(k_padded * 2 + w.blocks * 8, 1);
  w.rows = std::min(m, std::max<int64_t>(kCacheBytes / row_bytes / kRowStep, 1) * kRowStep);
  const auto array = [&](int64_t bytes) {
    const uint64_t offset = w.bytes;
    w.bytes += static_cast<uint64_t>(bytes + 63) / 64 * 64;
    return offset;
  };
  w.q = array(w.rows * k_padded * 2);
  w.scales = array(w.rows * w.blocks * 4);
  w.sums = array(w.rows * w.blocks * 4);
  return w;
}

}  // namespace culebra::cpu

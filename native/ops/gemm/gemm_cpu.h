// The workspace of gemm on the cpu: as many rows of a as are worked on at once, in f32 and in blocks of k.
#pragma once
#include <algorithm>
#include <cstdint>

namespace culebra::cpu {

// Values of k summed in registers before they are added to a result: the panel of b that they need stays in the
// first-level cache, and short sums keep f32 rounding far below the contract's bound.
inline constexpr int kGemmBlock = 192;

struct GemmWorkspace {
  int64_t rows;    // of a at once
  int64_t blocks;  // of k
  uint64_t bytes;  // f32 [blocks, rows, kGemmBlock]
};

constexpr GemmWorkspace gemm_workspace(int64_t m, int64_t k) {
  constexpr int64_t kCacheBytes = 16 << 20, kRowStep = 96;
  GemmWorkspace w{};
  w.blocks = (k + kGemmBlock - 1) / kGemmBlock;
  const int64_t row_bytes = std::max<int64_t>(w.blocks * kGemmBlock * 4, 1);
  const int64_t most = std::max<int64_t>(kCacheBytes / row_bytes / kRowStep, 1) * kRowStep;
  w.rows = std::min(m, most);
  w.bytes = static_cast<uint64_t>(w.rows * row_bytes);
  return w;
}

}  // namespace culebra::cpu

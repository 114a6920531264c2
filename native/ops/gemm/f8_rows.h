// The workspace of the products with e4m3 rows on the cpu: as many of them as are worked on at once, as bf16.
#pragma once
#include <algorithm>
#include <cstdint>

namespace culebra::cpu {

struct F8Rows {
  int64_t rows;      // of a at once
  int64_t k_padded;  // whole vectors
  uint64_t bytes;    // bf16 [rows, k_padded]
};

constexpr F8Rows f8_rows_workspace(int64_t m, int64_t k) {
  constexpr int64_t kCacheBytes = 16 << 20, kRowStep = 96;
  F8Rows w{};
  w.k_padded = (k + 63) / 64 * 64;
  const int64_t most = std::max<int64_t>(kCacheBytes / std::max<int64_t>(2 * w.k_padded, 1) / kRowStep, 1) * kRowStep;
  w.rows = std::min(m, most);
  w.bytes = static_cast<uint64_t>(w.rows * w.k_padded * 2);
  return w;
}

}  // namespace culebra::cpu

// The workspace of linear_logprob on the cpu: the state of as many tokens as are worked on at once, a tile of their logits, and
// what gemm asks for.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "ops/gemm/gemm_cpu.h"

namespace culebra::cpu {

inline constexpr float kLargest = std::numeric_limits<float>::max(), kInfinity = std::numeric_limits<float>::infinity();

// Running log-sum of a token, e^maximum sum, and its target's logit.
struct LogprobState {
  float maximum = -kLargest, sum = 0, label = -kInfinity;
};

inline constexpr int64_t kPiece = 512;  // words that are added to a log-sum at once

struct LogprobTile {
  int64_t rows, words;  // words: a multiple of kPiece
  int64_t row_stride;   // of the logits
  uint64_t logits_at, gemm_at, bytes;
};

constexpr LogprobTile logprob_tile(int64_t n, int64_t v, int64_t d) {
  constexpr int64_t kRows = 384, kElements = 1 << 20;
  LogprobTile t{};
  t.rows = std::min(n, kRows);
  const int64_t fitting = kElements / std::max<int64_t>(t.rows, 1) / kPiece, needed = (v + kPiece - 1) / kPiece;
  t.words = std::max<int64_t>(std::min(fitting, needed), 1) * kPiece;
  t.row_stride = t.words + 16;  // rows a power of two apart share few places in the caches
  t.logits_at = (static_cast<uint64_t>(t.rows) * sizeof(LogprobState) + 63) / 64 * 64;
  t.gemm_at = t.logits_at + static_cast<uint64_t>(t.rows * t.row_stride) * sizeof(float);
  t.bytes = n == 0 || v == 0 ? 0 : t.gemm_at + gemm_workspace(t.rows, d).bytes;
  return t;
}

}  // namespace culebra::cpu

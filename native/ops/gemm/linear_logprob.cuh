// What the kernels of linear_logprob for both designs share: log-sums of exponentials, where a block works, and what becomes of a tile
// of logits.
#pragma once
#include "device/launch.h"
#include "device/warp.h"
#include "ops/gemm/linear_logprob.h"

namespace culebra::CUL_DEVICE_NS {

inline constexpr float kLargest = 3.402823466e38f, kInfinity = __builtin_huge_valf();

// log sum of exponentials, as a maximum and a sum relative to it. The maximum is kept finite, so that no difference is
// infinity minus infinity: a sum over -inf alone is 0, one with +inf is inf, and a NaN stays in the sum.
struct LogSum {
  float maximum = -kLargest, sum = 0;

  CUL_DEVICE_FN void raise(float z) {
    const float higher = fminf(fmaxf(maximum, z), kLargest);
    sum *= __expf(maximum - higher);
    maximum = higher;
  }
  CUL_DEVICE_FN void add(float z) { sum += __expf(z - maximum); }  // after raise(at least z)
  CUL_DEVICE_FN void merge(float other_maximum, float other_sum) {
    raise(other_maximum);
    sum += other_sum * __expf(other_maximum - maximum);
  }
  // Over each group of kLanes lanes, in a fixed order.
  template <int kLanes>
  CUL_DEVICE_FN void merge_lanes() {
#pragma unroll
    for (int offset = kLanes / 2; offset > 0; offset /= 2)
      merge(__shfl_xor_sync(kFullMask, maximum, offset), __shfl_xor_sync(kFullMask, sum, offset));
  }
};

struct Logits {
  const void* bias;
  const int64_t* targets;
  float2* partials;  // [n, ranges]
  float* labels;     // [n]: the target's logit, written where the target is one of the words
  int64_t n, v, vocab_start;
  float softcap;
  int32_t token_tiles, tiles_per_range, ranges;

  template <class T>
  CUL_DEVICE_FN float finish(float sum, int64_t word) const {
    const float z = bias ? sum + to_float(static_cast<const T*>(bias)[word]) : sum;
    return softcap > 0 && z > -kInfinity ? softcap * tanhf(z / softcap) : z;  // -inf stays a mask
  }
  // The target's word here, or -1.
  CUL_DEVICE_FN int64_t label(int64_t token) const {
    const int64_t target = targets[token];
    return target >= vocab_start && target - vocab_start < v ? target - vocab_start : -1;
  }
};

// Bands of 16 token tiles go through all ranges before the next band: its tokens and the present words stay in L2.
struct Place {
  int64_t token_tile, range;
};
CUL_DEVICE_FN Place place(const Logits& p) {
  constexpr int kBand = 16;
  const int64_t index = blockIdx.x, band = index / (kBand * p.ranges), within = index % (kBand * p.ranges);
  const int64_t rows = min(p.token_tiles - band * kBand, int64_t{kBand});
  return {band * kBand + within % rows, within / rows};
}

// What one of a token's kThreads threads makes of its part of a tile of kColumns logits: `sums` is the token's row, word0 its first word.
// Vectors of four words go to the threads in turn; 8 of them at a time in registers: one rescaling for 32 words.
template <class T, int kColumns, int kThreads>
CUL_DEVICE_FN void fold_logits(const Logits& p, const float* sums, int64_t token, int64_t label, int64_t word0, int part, LogSum& total) {
  constexpr int kVectors = kColumns / 4 / kThreads;
  static_assert(kVectors % 8 == 0);
  const auto finish = [&](float sum, int64_t word) { return word < p.v ? p.template finish<T>(sum, word) : -kInfinity; };
#pragma unroll 1
  for (int i = 0; i < kVectors; i += 8) {
    float z[32], highest = -kInfinity;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int column = ((i + j) * kThreads + part) * 4;
      const float4 four = *reinterpret_cast<const float4*>(sums + column);
      z[4 * j] = finish(four.x, word0 + column);
      z[4 * j + 1] = finish(four.y, word0 + column + 1);
      z[4 * j + 2] = finish(four.z, word0 + column + 2);
      z[4 * j + 3] = finish(four.w, word0 + column + 3);
#pragma unroll
      for (int k = 0; k < 4; ++k) highest = fmaxf(highest, z[4 * j + k]);
    }
    total.raise(highest);
#pragma unroll
    for (int j = 0; j < 32; ++j) total.add(z[j]);
  }
  if (part == 0 && label >= word0 && label < word0 + kColumns) p.labels[token] = p.template finish<T>(sums[label - word0], label);
}

// linear_logprob_hopper.cu
template <class T>
void logits_hopper(const LogprobParams& p, const Logits& logits, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

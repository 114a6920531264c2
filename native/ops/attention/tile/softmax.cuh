// The softmax of attention while it runs: scores in the base-2 domain, a state (m, d, o) per query row, and how states merge.
//
//   m  maximum of the scores so far, times log2 e; -inf: nothing was seen
//   d  sum of 2^(score - m)
//   o  sum of 2^(score - m) v, divided by d when it is stored
//
// Merging states is associative, and a state that saw nothing is its neutral element: the warps of a block, the splits of a cache, the
// branches of a cascade and merge_states are the same sum.
#pragma once
#include "device/bits.h"
#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

inline constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f, kNoScore = -__builtin_huge_valf();

// From a product q . k to the exponent of 2: scale, then softcap.
struct Scores {
  float scale = 1, cap = 0;  // without a cap, scale has log2 e in it; with one, cap has, and scale is scale / cap

  Scores() = default;
  CUL_DEVICE_FN Scores(float scale, float softcap)
      : scale(softcap > 0 ? scale / softcap : scale * kLog2e), cap(softcap > 0 ? softcap * kLog2e : 0) {}

  CUL_DEVICE_FN float operator()(float product) const { return cap > 0 ? cap * tanhf(product * scale) : product * scale; }
  // All of a fragment: one branch for it, not one for each.
  template <int kA, int kB>
  CUL_DEVICE_FN void apply(float (&s)[kA][kB]) const {
    if (cap > 0) {
#pragma unroll
      for (int i = 0; i < kA * kB; ++i) s[i / kB][i % kB] = cap * tanhf(s[i / kB][i % kB] * scale);
    } else {
#pragma unroll
      for (int i = 0; i < kA * kB; ++i) s[i / kB][i % kB] *= scale;
    }
  }
};

struct Softmax {
  float m = kNoScore, d = 0;

  CUL_DEVICE_FN bool nothing() const { return m == kNoScore && d == 0; }

  // What exponents are taken relative to: never -inf, so that no difference is infinity minus infinity.
  CUL_DEVICE_FN float base() const { return m == kNoScore ? 0.0f : m; }

  // Takes in a maximum; d, and o, which the caller has, are multiplied by the result.
  CUL_DEVICE_FN float raise(float score) {
    const float before = m;
    m = fmaxf(m, score);
    const float factor = fast_exp2(before - base());
    d *= factor;
    return factor;
  }
  // This state's and the other's factor in the merged o; this becomes the merged state.
  CUL_DEVICE_FN float2 merge(const Softmax& other) {
    const float mine = raise(other.m), theirs = fast_exp2(other.m - base());
    d += other.d * theirs;
    return make_float2(mine, theirs);
  }
  // 1 / (d + exp(sink)); 0 where nothing was seen. sink -inf: none.
  CUL_DEVICE_FN float inverse(float sink) const {
    if (nothing()) return 0;
    return 1 / (sink == kNoScore ? d : d + fast_exp2(sink * kLog2e - base()));
  }
  // Natural log of the sum, without the sink; -inf where nothing was seen, NaN where a score was.
  CUL_DEVICE_FN float lse() const { return nothing() ? kNoScore : (base() + log2f(d)) * kLn2; }
};

}  // namespace culebra::CUL_DEVICE_NS

// What the two designs of w4a16_gemm share. Their calls have `a` in the order of the packed weights: act-order is gathered before.
#pragma once
#include "ops/gemm/tile/epilogue.cuh"
#include "ops/gemm/w4a16_gemm.h"

namespace culebra::CUL_DEVICE_NS {

// group of packed row k: k >> group_shift
inline int32_t group_shift(const W4A16GemmParams& p) {
  for (int s = 5; s <= 7; ++s)
    if (p.group == int64_t{1} << s) return s;
  return 31;  // one group
}

// partials: null where the kernel finishes c itself. w4a16_gemm_hopper.cu.
template <class T>
void w4a16_hopper(const W4A16GemmParams& p, const Output& output, float* partials, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

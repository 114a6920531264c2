// The vector instruction sets that this processor has, one by one.
#pragma once
#include <gtest/gtest.h>

#include "backends/cpu/simd.h"
#include "hwy/highway.h"

namespace culebra::testing {

// Runs f with each as the best one that the cpu kernels may choose, the best first: a kernel that was not compiled for it takes the
// next lesser one.
template <class F>
void on_every_target(F&& f) {
  hwy::SetSupportedTargetsForTest(0);
  const int64_t supported = hwy::SupportedTargets();
  for (const int64_t target : {HWY_AVX3_DL, HWY_AVX3, HWY_AVX2, HWY_SSE4, HWY_NEON}) {
    if (!(supported & target)) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(supported & -target);  // a better set is a lower bit
    f();
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace culebra::testing

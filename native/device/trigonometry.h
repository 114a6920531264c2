// sincospif, which CUDA C++ has and the host compiler has not: sine and cosine of pi x.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED
inline void sincospif(float x, float* sine, float* cosine) {
  const double angle = 3.14159265358979323846 * static_cast<double>(x);
  *sine = static_cast<float>(std::sin(angle));
  *cosine = static_cast<float>(std::cos(angle));
}
#endif

}  // namespace culebra::CUL_DEVICE_NS

// A filter's taps as every form of conv_fft reads them, and the form for some taps on tensor cores.
#pragma once
#include "device/launch.h"
#include "device/portable.h"
#include "ops/linear_attention/conv_fft.h"

namespace culebra::CUL_DEVICE_NS {

template <class T>
CUL_DEVICE_FN float skip_of(const ConvFftParams& p, int64_t channel) {
  if (!p.skip) return 0.0f;
  return p.skip_is_f32 ? static_cast<const float*>(p.skip)[channel] : to_float(static_cast<const T*>(p.skip)[channel]);
}

// Tap s of a channel; skip is one more weight of the token itself.
template <class T>
CUL_DEVICE_FN float tap_of(const ConvFftParams& p, int64_t channel, int64_t s) {
  const float tap = s < p.taps ? p.filter[channel * p.filter_stride + s] : 0.0f;
  return s == 0 ? tap + skip_of<T>(p, channel) : tap;
}

// Halves on tensor cores, plan.form blocks.
void conv_fft_blocks(const ConvFftParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

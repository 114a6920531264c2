// Feature maps on the cpu.
#include "ops/linear_attention/feature_map.h"

#if defined(CULEBRA_FEATURE_MAP_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_FEATURE_MAP_CPU_INL_H_
#undef CULEBRA_FEATURE_MAP_CPU_INL_H_
#else
#define CULEBRA_FEATURE_MAP_CPU_INL_H_
#endif

#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// Softmax over the 2K values [x, -x]. The largest of them is |x|'s maximum.
HWY_INLINE void hedgehog(const float* x, int64_t n, float* to) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float top = 0;
  for (int64_t i = 0; i < n; ++i) top = std::max(top, std::abs(x[i]));
  const F32 shift = hn::Set(d, top);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) to[i] = x[i];
  for (int64_t i = 0; i < n; ++i) to[n + i] = -x[i];
  for (int64_t i = 0; i < 2 * n; i += lanes) store_f32(hn::Exp(d, hn::Sub(load(to + i), shift)), to + i);
  for (int64_t i = 0; i < 2 * n; ++i) sum += to[i];
  for (int64_t i = 0; i < 2 * n; ++i) to[i] /= sum;
}

// [1, x_i d^-1/4, x_i^2 (2d)^-1/2, x_i x_j d^-1/2 for i < j in row order]
HWY_INLINE void taylor2(const float* x, int64_t n, float* to) {
  const double width = static_cast<double>(n);
  const float first = static_cast<float>(1 / std::sqrt(std::sqrt(width)));
  const float square = static_cast<float>(1 / std::sqrt(2 * width));
  const float cross = static_cast<float>(1 / std::sqrt(width));
  *to++ = 1;
  for (int64_t i = 0; i < n; ++i) *to++ = x[i] * first;
  for (int64_t i = 0; i < n; ++i) *to++ = x[i] * x[i] * square;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i + 1; j < n; ++j) *to++ = x[i] * x[j] * cross;
}

// `x` is [padded(n)]; `to` [padded(feature_dim)], zeros behind the features.
HWY_INLINE void map_features(FeatureMap map, const float* x, int64_t n, float* to) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = feature_dim(map, n);
  const F32 zero = hn::Zero(d), one = hn::Set(d, 1.0f);
  switch (map) {
    case FeatureMap::hedgehog: hedgehog(x, n, to); break;
    case FeatureMap::taylor2: taylor2(x, n, to); break;
    default:
      for (int64_t i = 0; i < padded(n); i += lanes) {
        const F32 value = load(x + i), positive = hn::Max(value, zero);
        F32 mapped = value;
        if (map == FeatureMap::relu) mapped = positive;
        if (map == FeatureMap::squared_relu) mapped = hn::Mul(positive, positive);
        if (map == FeatureMap::elu1)
          mapped = hn::IfThenElse(hn::Gt(value, zero), hn::Add(value, one), hn::Exp(d, hn::Min(value, zero)));
        store_f32(mapped, to + i);
      }
  }
  std::fill(to + width, to + padded(width), 0.0f);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

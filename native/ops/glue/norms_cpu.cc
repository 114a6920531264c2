#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/glue/norms_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"

#include <cmath>

#include "backends/cpu/thread_pool.h"
#include "ops/glue/norms.h"
#include "ops/glue/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
using namespace glue;

template <class T>
void rms_norm_row(const RmsNormParams& p, int64_t row) {
  const D d;
  const T* x = p.x.row<const T>(row);
  const T* residual = p.residual ? p.residual.row<const T>(row) : nullptr;
  T* residual_out = p.residual_out ? p.residual_out.row<T>(row) : nullptr;
  const auto sum = [&](int64_t i, size_t count) HWY_ATTR {
    const V v = load(x + i, count);
    return residual ? round_to<T>(hn::Add(v, load(residual + i, count))) : v;
  };
  const float squares = sum_over(p.columns, [&](int64_t i, size_t count) HWY_ATTR {
    const V h = sum(i, count);
    if (residual_out) store(h, residual_out + i, count);
    return hn::Mul(h, h);
  });
  const V inverse = hn::Set(d, 1.0f / std::sqrt(squares / static_cast<float>(p.columns) + p.eps));
  const V offset = hn::Set(d, p.zero_centered ? 1.0f : 0.0f);
  const T* weight = static_cast<const T*>(p.weight);
  T* y = p.y.row<T>(row);
  for_vectors(p.columns, [&](int64_t i, size_t count) HWY_ATTR {
    // residual_out may have taken the place of x or residual: what the first pass stored there is h.
    const V h = residual_out ? load<T>(residual_out + i, count) : sum(i, count);
    store(hn::Mul(hn::Mul(h, inverse), hn::Add(load(weight + i, count), offset)), y + i, count);
  });
}

template <class T>
void layer_norm_row(const LayerNormParams& p, int64_t row) {
  const D d;
  const T* x = p.x.row<const T>(row);
  const auto n = static_cast<float>(p.columns);
  const V mean = hn::Set(d, sum_over(p.columns, [&](int64_t i, size_t count) HWY_ATTR { return load(x + i, count); }) / n);
  const float squares = sum_over(p.columns, [&](int64_t i, size_t count) HWY_ATTR {
    const V c = hn::Sub(load(x + i, count), mean);
    return hn::Mul(c, c);
  });
  const V inverse = hn::Set(d, 1.0f / std::sqrt(squares / n + p.eps));
  const T* weight = static_cast<const T*>(p.weight);
  const T* bias = static_cast<const T*>(p.bias);
  T* y = p.y.row<T>(row);
  for_vectors(p.columns, [&](int64_t i, size_t count) HWY_ATTR {
    const V scaled = hn::Mul(hn::Mul(hn::Sub(load(x + i, count), mean), inverse), load(weight + i, count));
    store(bias ? hn::Add(scaled, load(bias + i, count)) : scaled, y + i, count);
  });
}

void rms_norm_rows(const RmsNormParams& p, int64_t begin, int64_t end) {
  with_float(p.dtype, [&](auto tag) {
    for (int64_t row = begin; row < end; ++row) rms_norm_row<decltype(tag)>(p, row);
  });
}
void layer_norm_rows(const LayerNormParams& p, int64_t begin, int64_t end) {
  with_float(p.dtype, [&](auto tag) {
    for (int64_t row = begin; row < end; ++row) layer_norm_row<decltype(tag)>(p, row);
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(layer_norm_rows);

void rms_norm(const RmsNormParams& p, ThreadPool& pool) {
  pool.parallel_for(p.rows, glue::row_grain(p.columns),
                    [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(rms_norm_rows)(p, begin, end); });
}
void layer_norm(const LayerNormParams& p, ThreadPool& pool) {
  pool.parallel_for(p.rows, glue::row_grain(p.columns),
                    [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(layer_norm_rows)(p, begin, end); });
}
}  // namespace culebra::cpu
#endif

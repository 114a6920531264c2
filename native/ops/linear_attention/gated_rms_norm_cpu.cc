#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/linear_attention/gated_rms_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/gated_rms_norm_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = GatedRmsNormParams;

// In double: the square of a large f32 is none. Sixteen partial sums let the compiler vectorize.
HWY_INLINE double sum_of_squares(const float* x, int64_t n) {
  double partial[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int64_t j = 0; j < 16; ++j) partial[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (int64_t j = 0; i < n; ++i, ++j) partial[j] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0;
  for (double s : partial) sum += s;
  return sum;
}

// x *= act(gate), on padded(n) elements.
HWY_INLINE void apply_gate(float* x, const float* gate, int64_t n, bool sigmoid_gate) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32Tag()));
  for (int64_t i = 0; i < padded(n); i += lanes) {
    const F32 g = load(gate + i);
    store_f32(hn::Mul(load(x + i), sigmoid_gate ? sigmoid(g) : silu(g)), x + i);
  }
}

template <class T>
void run_rows(const Params& p, int64_t begin, int64_t end) {
  static thread_local std::vector<float> scratch;
  const int64_t pitch = padded(p.dim);
  scratch.resize(static_cast<size_t>(3 * pitch));
  float* const x = scratch.data();
  float* const gate = x + pitch;
  float* const weight = gate + pitch;
  if (p.weight_dtype == DType::f32) {
    load_row(static_cast<const float*>(p.weight), p.dim, weight);
  } else {
    load_row(static_cast<const T*>(p.weight), p.dim, weight);
  }
  const int64_t group = p.dim / p.groups;
  for (int64_t row = begin; row < end; ++row) {
    load_row(static_cast<const T*>(p.x.data) + p.offset(p.x, row), p.dim, x);
    if (p.gate.data) load_row(static_cast<const T*>(p.gate.data) + p.offset(p.gate, row), p.dim, gate);
    if (p.gate.data && !p.norm_before_gate) apply_gate(x, gate, p.dim, p.sigmoid);
    for (int64_t first = 0; first < p.dim; first += group) {
      const double mean = sum_of_squares(x + first, group) / static_cast<double>(group);
      const float factor = static_cast<float>(1 / std::sqrt(mean + static_cast<double>(p.eps)));
      for (int64_t i = first; i < first + group; ++i) x[i] = x[i] * factor * weight[i];
    }
    if (p.gate.data && p.norm_before_gate) apply_gate(x, gate, p.dim, p.sigmoid);
    store_row(x, p.dim, static_cast<T*>(p.y.data) + p.offset(p.y, row));
  }
}

void gated_rms_norm_rows(const Params& p, int64_t begin, int64_t end) {
  with_float_type(p.dtype, [&](auto type) { run_rows<decltype(type)>(p, begin, end); });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(gated_rms_norm_rows);

void gated_rms_norm(const GatedRmsNormParams& p, ThreadPool& pool) {
  if (p.rows() == 0 || p.dim == 0) return;
  const auto run = HWY_DYNAMIC_DISPATCH(gated_rms_norm_rows);
  pool.parallel_for(p.rows(), 16384 / p.dim + 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

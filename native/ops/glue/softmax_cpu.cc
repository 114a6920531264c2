#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/glue/softmax_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"

#include "backends/cpu/thread_pool.h"
#include "ops/glue/simd-inl.h"
#include "ops/glue/softmax.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
using namespace glue;

template <class T>
void softmax_row(const SoftmaxParams& p, int64_t row) {
  const D d;
  const T* x = p.x.row<const T>(row);
  T* y = p.y.row<T>(row);
  const V max = hn::Set(d, max_over(x, p.columns));
  // e^(x - max) twice: cheaper than a row of scratch. A NaN or an infinite maximum makes the sum NaN, and so every y.
  const auto weight = [&](int64_t i, size_t count) HWY_ATTR { return exp(hn::Sub(load(x + i, count), max)); };
  const V inverse = hn::Set(d, 1.0f / sum_over(p.columns, weight));
  for_vectors(p.columns, [&](int64_t i, size_t count) HWY_ATTR {
    store(hn::Mul(weight(i, count), inverse), y + i, count);
  });
}

template <class T>
void argmax_row(const ArgmaxParams& p, int64_t row) {
  const T* x = p.x.row<const T>(row);
  p.ids[row] = static_cast<int32_t>(argmax(x, p.columns));
}

void softmax_rows(const SoftmaxParams& p, int64_t begin, int64_t end) {
  with_float(p.dtype, [&](auto tag) {
    for (int64_t row = begin; row < end; ++row) softmax_row<decltype(tag)>(p, row);
  });
}
void argmax_rows(const ArgmaxParams& p, int64_t begin, int64_t end) {
  with_float(p.dtype, [&](auto tag) {
    for (int64_t row = begin; row < end; ++row) argmax_row<decltype(tag)>(p, row);
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(softmax_rows);
HWY_EXPORT(argmax_rows);

void softmax(const SoftmaxParams& p, ThreadPool& pool) {
  pool.parallel_for(p.rows, glue::row_grain(4 * p.columns),
                    [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(softmax_rows)(p, begin, end); });
}
void argmax(const ArgmaxParams& p, ThreadPool& pool) {
  pool.parallel_for(p.rows, glue::row_grain(p.columns),
                    [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(argmax_rows)(p, begin, end); });
}
}  // namespace culebra::cpu
#endif

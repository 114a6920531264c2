#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/glue/rows.h"
#include "ops/moe/moe_combine.h"
#include "ops/moe/moe_permute.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/moe/moe_combine_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// y[0, width) of a token whose rows and weights are these `count` ones.
template <class T>
HWY_INLINE void combine_token(const T* const* rows, const float* weights, int64_t count, int64_t width, T* y) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    F32 sum = hn::Zero(d);
    for (int64_t j = 0; j < count; ++j) sum = hn::MulAdd(hn::Set(d, weights[j]), load(rows[j] + i), sum);
    store_f32(sum, y + i);
  }
  for (; i < width; ++i) {
    float sum = 0;
    for (int64_t j = 0; j < count; ++j) sum = std::fma(weights[j], to_float(rows[j][i]), sum);
    y[i] = from_float<T>(sum);
  }
}

void combine_tokens(const MoeCombineParams& p, int64_t begin, int64_t end) {
  with_float_type(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    std::vector<const T*> rows(static_cast<size_t>(p.k));
    std::vector<float> weights(static_cast<size_t>(p.k));
    for (int64_t t = begin; t < end; ++t) {
      size_t count = 0;
      bool no_room = false;
      for (int64_t j = 0; j < p.k; ++j) {
        const int64_t row = p.inverse[t * p.k + j];
        no_room |= row == kNoRoom && p.nan_without_room;
        if (row < 0 || row >= p.row_count) continue;
        rows[count] = static_cast<const T*>(p.rows) + row * p.rows_stride;
        weights[count++] = p.weights[t * p.weights_stride + j];
      }
      T* const y = static_cast<T*>(p.y) + t * p.y_stride;
      if (no_room) std::fill(y, y + p.width, from_float<T>(NAN));
      else combine_token(rows.data(), weights.data(), static_cast<int64_t>(count), p.width, y);
    }
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(combine_tokens);

void moe_combine(const MoeCombineParams& p, ThreadPool& pool) {
  if (p.validate) require_valid("moe_combine", p.indices());
  pool.parallel_for(p.tokens, glue::row_grain(p.width * p.k),
                    [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(combine_tokens)(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

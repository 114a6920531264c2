// One row after the other: its states' weights, then a weighted sum that reads each o once.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/attention/merge_states.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/merge_states_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// sum += weight * from
template <class T>
HWY_INLINE void add_row(float weight, const T* from, int64_t n, float* sum) {
  const F32 w = hn::Set(F32Tag(), weight);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32Tag()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store_f32(hn::MulAdd(w, load(from + i), load(sum + i)), sum + i);
  for (; i < n; ++i) sum[i] = std::fma(weight, to_float(from[i]), sum[i]);
}

template <class T>
void merge_row(const MergeStatesParams& p, int64_t token, int64_t head, std::vector<float>& sums) {
  const auto at = [&](const MergeStatesParams::Rows& x, int64_t state) { return state * x.state + token * x.row + head * x.head; };
  const auto lse = [&](int64_t i) { return static_cast<const float*>(p.lse.data)[at(p.lse, i)]; };
  bool nothing = true;
  float base = -INFINITY, sum = 0;
  for (int64_t i = 0; i < p.states; ++i) {
    nothing = nothing && lse(i) == -INFINITY;
    base = std::fmax(base, lse(i));
  }
  if (base == -INFINITY) base = 0;
  for (int64_t i = 0; i < p.states; ++i) sum += std::exp(lse(i) - base);
  std::fill(sums.begin(), sums.end(), 0.0f);
  for (int64_t i = 0; i < p.states; ++i)
    if (lse(i) != -INFINITY)  // what such a state's o holds counts for nothing
      add_row(std::exp(lse(i) - base) / sum, static_cast<const T*>(p.o.data) + at(p.o, i), p.dim, sums.data());
  store_row(sums.data(), p.dim, static_cast<T*>(p.merged_o.data) + at(p.merged_o, 0));
  if (p.merged_lse.data) static_cast<float*>(p.merged_lse.data)[at(p.merged_lse, 0)] = nothing ? -INFINITY : base + std::log(sum);
}

void merge_rows(const MergeStatesParams& p, int64_t begin, int64_t end) {
  std::vector<float> sums(static_cast<size_t>(padded(p.dim)));
  with_float_type(p.dtype, [&](auto type) {
    for (int64_t row = begin; row < end; ++row) merge_row<decltype(type)>(p, row / p.heads, row % p.heads, sums);
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(merge_rows);

void merge_states(const MergeStatesParams& p, ThreadPool& pool) {
  const auto run = HWY_DYNAMIC_DISPATCH(merge_rows);
  pool.parallel_for(p.tokens * p.heads, 32768 / (p.states * p.dim + 1) + 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

// One pass over a sequence's tokens of a head finds its runs; each run is merged when its end is known.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/kv_cache/kv_merge.h"
#include "ops/attention/top_keys.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/kv_cache/kv_merge_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = KvMergeParams;

HWY_INLINE float dot_rows(const float* a, const float* b, int64_t n) {
  F32 sum = hn::Zero(F32Tag());
  for (int64_t i = 0; i < n; i += kLanes) sum = hn::MulAdd(load(a + i), load(b + i), sum);
  return sum_of_lanes(sum);
}
HWY_INLINE float distance_of(const float* a, const float* b, int64_t n) {
  F32 sum = hn::Zero(F32Tag());
  for (int64_t i = 0; i < n; i += kLanes) {
    const F32 x = hn::Sub(load(a + i), load(b + i));
    sum = hn::MulAdd(x, x, sum);
  }
  return sum_of_lanes(sum);
}
HWY_INLINE void add_row(float* sum, const float* x, float weight, int64_t n) {
  const F32 w = hn::Set(F32Tag(), weight);
  for (int64_t i = 0; i < n; i += kLanes) store_f32(hn::MulAdd(w, load(x + i), load(sum + i)), sum + i);
}

// The tokens of one sequence and head.
template <class T>
class Merger {
 public:
  Merger(const Params& p, int64_t b, int64_t head)
      : p_(p), first_(p.cu_seqlens[b]), length_(p.cu_seqlens[b + 1] - first_), head_(head), pitch_(padded(p.key_dim)),
        value_pitch_(padded(p.value_dim)), key_(static_cast<size_t>(pitch_)), pivot_(key_), sum_(key_),
        value_(static_cast<size_t>(value_pitch_)), value_sum_(value_) {}

  // Returns the number of runs.
  int64_t run() {
    protect();
    int64_t runs = 0, begin = 0;
    float previous_norm = 0;
    std::vector<float> previous(key_);
    for (int64_t i = 0; i < length_; ++i) {
      load_row(key(i), p_.key_dim, key_.data());
      const float norm = dot_rows(key_.data(), key_.data(), pitch_);
      const bool joins = i > 0 && !alone(i) && !alone(i - 1) &&
                         p_.similar(dot_rows(key_.data(), previous.data(), pitch_), norm, previous_norm);
      std::swap(key_, previous);
      previous_norm = norm;
      if (joins || i == 0) continue;
      merge(begin, i, runs++);
      begin = i;
    }
    if (length_ > 0) merge(begin, length_, runs++);
    for (int64_t r = runs; r < length_; ++r) {
      std::fill_n(p_.merged_k.at<T>(0, first_ + r, head_), p_.key_dim, T{});
      std::fill_n(p_.merged_v.at<T>(0, first_ + r, head_), p_.value_dim, T{});
      *p_.origin.at<int32_t>(0, first_ + r, head_) = -1;
    }
    return runs;
  }

 private:
  const T* key(int64_t i) const { return p_.k.at<const T>(0, first_ + i, head_); }
  float mass(int64_t i) const { return *p_.mass.at<const float>(0, first_ + i, head_); }
  bool alone(int64_t i) const { return !alone_.empty() && alone_[static_cast<size_t>(i)]; }

  void protect() {
    const int64_t count = p_.protected_of(length_);
    if (count == 0) return;
    std::vector<uint32_t> keys(static_cast<size_t>(length_));
    for (int64_t i = 0; i < length_; ++i) keys[static_cast<size_t>(i)] = order_key(mass(i));
    std::vector<uint32_t> reordered(keys);
    TopKeys top = top_keys(reordered.data(), length_, count);
    for (uint32_t k : keys) alone_.push_back(k > top.least || (k == top.least && top.equals-- > 0));
  }

  // Tokens [begin, end) become entry `run`.
  void merge(int64_t begin, int64_t end, int64_t run) {
    int64_t pivot = begin;
    for (int64_t i = begin + 1; i < end; ++i)
      if (order_key(mass(i)) > order_key(mass(pivot))) pivot = i;
    *p_.origin.at<int32_t>(0, first_ + run, head_) = static_cast<int32_t>(pivot);
    T* merged_k = p_.merged_k.at<T>(0, first_ + run, head_);
    T* merged_v = p_.merged_v.at<T>(0, first_ + run, head_);
    if (end - begin == 1) {
      std::copy_n(key(begin), p_.key_dim, merged_k);
      std::copy_n(p_.v.at<const T>(0, first_ + begin, head_), p_.value_dim, merged_v);
      return;
    }
    load_row(key(pivot), p_.key_dim, pivot_.data());
    distances_.clear();
    double total = 0;
    for (int64_t i = begin; i < end; ++i) {
      load_row(key(i), p_.key_dim, row_buffer());
      distances_.push_back(distance_of(row_buffer(), pivot_.data(), pitch_));
      total += distances_.back();
    }
    const auto spread = static_cast<float>(total / static_cast<double>(end - begin));
    std::fill(sum_.begin(), sum_.end(), 0.0f);
    std::fill(value_sum_.begin(), value_sum_.end(), 0.0f);
    double weights = 0;
    for (int64_t i = begin; i < end; ++i) {
      const float distance = distances_[static_cast<size_t>(i - begin)];
      const float weight = spread == 0 ? 1.0f : std::exp(-distance / (2 * spread));
      weights += weight;
      load_row(key(i), p_.key_dim, row_buffer());
      add_row(sum_.data(), row_buffer(), weight, pitch_);
      load_row(p_.v.at<const T>(0, first_ + i, head_), p_.value_dim, value_.data());
      add_row(value_sum_.data(), value_.data(), weight, value_pitch_);
    }
    const auto factor = static_cast<float>(1 / weights);
    scale_row(sum_.data(), factor, p_.key_dim);
    scale_row(value_sum_.data(), factor, p_.value_dim);
    store_row(sum_.data(), p_.key_dim, merged_k);
    store_row(value_sum_.data(), p_.value_dim, merged_v);
  }
  float* row_buffer() { return key_.data(); }  // free between two tokens

  const Params& p_;
  int64_t first_, length_, head_, pitch_, value_pitch_;
  std::vector<float> key_, pivot_, sum_, value_, value_sum_, distances_;
  std::vector<bool> alone_;
};

void merge_items(const Params& p, int64_t begin, int64_t end) {
  with_float_type(p.dtype, [&](auto type) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / p.heads, head = i % p.heads;
      p.count[b * p.count_stride + head] = static_cast<int32_t>(Merger<decltype(type)>(p, b, head).run());
    }
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(merge_items);

void kv_merge(const KvMergeParams& p, ThreadPool& pool) {
  require_valid("kv_merge", p);
  const auto run = HWY_DYNAMIC_DISPATCH(merge_items);
  pool.parallel_for(p.sequences * p.heads, 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

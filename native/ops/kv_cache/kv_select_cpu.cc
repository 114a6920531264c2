#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/kv_cache/kv_select.h"
#include "ops/attention/top_keys.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/kv_cache/kv_select_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = KvSelectParams;

// One row's work memory.
struct Scratch {
  std::vector<float> q, low, high;
  std::vector<uint32_t> keys, reordered;
};

// If cos(q, q_ref), over all heads of the group, is at least theta. A vector of zeros is like no other.
template <class T>
bool keeps_previous(const Params& p, int64_t b, int64_t head) {
  if (!p.q_ref.data) return false;
  double product = 0, own = 0, other = 0;
  for (int64_t g = 0; g < p.group; ++g) {
    const T* x = p.q.at<const T>(0, b, head * p.group + g);
    const T* y = p.q_ref.at<const T>(0, b, head * p.group + g);
    for (int64_t i = 0; i < p.dim; ++i) {
      const double a = to_float(x[i]), c = to_float(y[i]);
      product += a * c;
      own += a * a;
      other += c * c;
    }
  }
  return own > 0 && other > 0 && product / std::sqrt(own * other) >= p.theta;
}

// sum over the group and the channels of max(q low, q high)
template <class T>
float page_score(const Params& p, int64_t page, int64_t head, Scratch& s) {
  const int64_t pitch = padded(p.dim);
  load_row(p.page_min.at<const T>(0, page, head), p.dim, s.low.data());
  load_row(p.page_max.at<const T>(0, page, head), p.dim, s.high.data());
  F32 sum = hn::Zero(F32Tag());
  for (int64_t g = 0; g < p.group; ++g)
    for (int64_t i = 0; i < pitch; i += kLanes) {
      const F32 q = load(s.q.data() + g * pitch + i);
      const F32 a = hn::Mul(q, load(s.low.data() + i)), c = hn::Mul(q, load(s.high.data() + i));
      sum = hn::Add(sum, hn::IfThenElse(hn::IsNaN(a), a, hn::IfThenElse(hn::IsNaN(c), c, hn::Max(a, c))));
    }
  return sum_of_lanes(sum);
}

template <class T>
void select_row(const Params& p, int64_t b, int64_t head, Scratch& s) {
  int32_t* idx = p.idx.at<int32_t>(0, b, head);
  int64_t chosen = 0;
  if (keeps_previous<T>(p, b, head)) {
    const int32_t* previous = p.prev_idx.at<const int32_t>(0, b, head);
    for (int64_t i = 0; i < p.topk; ++i) {
      idx[i] = previous[i];
      chosen += previous[i] >= 0;
    }
    p.count[b * p.count_stride + head] = static_cast<int32_t>(chosen);
    return;
  }
  const int64_t n = p.page_count[b], pitch = padded(p.dim);
  const Params::Choice choice = p.choice(n);
  const int64_t candidates = choice.end - choice.begin;
  TopKeys top{0xffffffffu, 0};
  if (choice.free > 0) {
    s.q.resize(static_cast<size_t>(p.group * pitch));
    s.low.resize(static_cast<size_t>(pitch));
    s.high.resize(static_cast<size_t>(pitch));
    for (int64_t g = 0; g < p.group; ++g)
      load_row(p.q.at<const T>(0, b, head * p.group + g), p.dim, s.q.data() + g * pitch);
    s.keys.resize(static_cast<size_t>(candidates));
    for (int64_t j = 0; j < candidates; ++j) {
      const int32_t page = p.page_table[b * p.page_table_stride + choice.begin + j];
      s.keys[static_cast<size_t>(j)] = order_key(page < 0 ? -INFINITY : page_score<T>(p, page, head, s));
    }
    s.reordered = s.keys;
    top = top_keys(s.reordered.data(), candidates, choice.free);
  }
  for (int64_t j = 0; j < n; ++j) {
    bool take = j < choice.begin || j >= choice.end;
    if (!take && choice.free > 0) {
      const uint32_t key = s.keys[static_cast<size_t>(j - choice.begin)];
      take = key > top.least || (key == top.least && top.equals-- > 0);
    }
    if (take) idx[chosen++] = static_cast<int32_t>(j);
  }
  p.count[b * p.count_stride + head] = static_cast<int32_t>(chosen);
  for (; chosen < p.topk; ++chosen) idx[chosen] = -1;
}

void select_rows(const Params& p, int64_t begin, int64_t end) {
  static thread_local Scratch scratch;
  with_float_type(p.dtype, [&](auto type) {
    for (int64_t i = begin; i < end; ++i) select_row<decltype(type)>(p, i / p.kv_heads, i % p.kv_heads, scratch);
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(select_rows);

void kv_select(const KvSelectParams& p, ThreadPool& pool) {
  require_valid("kv_select", p);
  const auto run = HWY_DYNAMIC_DISPATCH(select_rows);
  pool.parallel_for(p.sequences * p.kv_heads, 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

// Threads share out heads and channels, not pages: sequences may share a page, and each element has one writer.
#include <algorithm>

#include "backends/cpu/thread_pool.h"
#include "ops/kv_cache/kv_page_stats.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/kv_cache/kv_page_stats_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

constexpr int64_t kChannels = 64;  // of one work item

// Channels [from, to) of a page of one head. The first of equal elements stays; a NaN stays once it is met.
template <class T>
void page_stats(const PageStatsParams& p, int64_t page, int64_t head, int64_t tokens, int64_t from, int64_t to) {
  alignas(64) float low[kChannels + kRowPad], high[kChannels + kRowPad], row[kChannels + kRowPad];
  load_row(p.cache.at<const T>(page, 0, head) + from, to - from, low);
  std::copy(low, low + padded(to - from), high);
  for (int64_t t = 1; t < tokens; ++t) {
    load_row(p.cache.at<const T>(page, t, head) + from, to - from, row);
    for (int64_t i = 0; i < to - from; i += kLanes) {
      const F32 x = load(row + i), a = load(low + i), b = load(high + i);
      const auto nan = hn::IsNaN(x);
      store_f32(hn::IfThenElse(hn::Or(hn::Lt(x, a), nan), x, a), low + i);
      store_f32(hn::IfThenElse(hn::Or(hn::Gt(x, b), nan), x, b), high + i);
    }
  }
  store_row(low, to - from, p.page_min.at<T>(0, page, head) + from);
  store_row(high, to - from, p.page_max.at<T>(0, page, head) + from);
}

// Work items: (head, kChannels channels), each for all pages.
void page_stats_items(const PageStatsParams& p, int64_t begin, int64_t end) {
  const int64_t chunks = (p.dim + kChannels - 1) / kChannels;
  with_float_type(p.dtype, [&](auto type) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t b = 0; b < p.sequences; ++b)
        for (int64_t j = p.first_token[b] / p.page_size; j * p.page_size < p.kv_len[b]; ++j) {
          const int32_t page = p.page_table[b * p.page_table_stride + j];
          if (page < 0) continue;
          const int64_t from = i % chunks * kChannels;
          page_stats<decltype(type)>(p, page, i / chunks, std::min(p.page_size, p.kv_len[b] - j * p.page_size), from,
                                     std::min(from + kChannels, p.dim));
        }
  });
}

int64_t page_stats_item_count(const PageStatsParams& p) { return p.heads * ((p.dim + kChannels - 1) / kChannels); }

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(page_stats_items);
HWY_EXPORT(page_stats_item_count);

void kv_page_stats(const PageStatsParams& p, ThreadPool& pool) {
  require_valid("kv_page_stats", p);
  const auto run = HWY_DYNAMIC_DISPATCH(page_stats_items);
  pool.parallel_for(HWY_DYNAMIC_DISPATCH(page_stats_item_count)(p), 1,
                    [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

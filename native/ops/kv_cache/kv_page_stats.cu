#include <algorithm>

#include "device/launch.h"
#include "device/vector.h"
#include "device/block_divide.h"
#include "ops/kv_cache/kv_page_stats.h"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 128;

// Computes: per page, head and channel the smallest and the largest key
// Shapes:   k_cache [P,page,Hkv,D] -> page_min, page_max [P,Hkv,D]; only pages with a token from first_token on
// Layouts:  rows anywhere; kWidth channels a load where all of them are aligned to it, else one
// Tiles:    a page a block, which goes on to every across-th of its sequence; a thread kWidth channels of a head, all tokens
// Shared:   none
// Order:    tokens ascending; the first of equal elements stays, and a NaN once it is met
// Numerics: exact
// Needs:    sm_80. Limit: the bytes of the pages, once
// Source:   Quest, arXiv:2406.10774
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) page_stats_kernel(PageStatsParams p, int across) {
  const auto [b, part] = block_divide(blockIdx.x, across);
  const int64_t length = min(int64_t{p.kv_len[b]}, p.table_pages * p.page_size);
  const int64_t chunks = block_divide(p.dim, kWidth).quotient;
  for (int64_t j = block_divide(max(p.first_token[b], 0), p.page_size).quotient + part; j * p.page_size < length; j += across) {
    const int32_t page = p.page_table[b * p.page_table_stride + j];
    if (page < 0) continue;
    const int64_t tokens = min(p.page_size, length - j * p.page_size);
    for (int64_t i = threadIdx.x; i < p.heads * chunks; i += kThreads) {
      const auto [head, chunk] = block_divide(i, chunks);
      const int64_t c = chunk * kWidth;
      const T* from = p.cache.at<const T>(page, 0, head) + c;
      const auto load = [&](const T* x) {
        if constexpr (kWidth > 1)
          return load_vector<kWidth>(x);
        else
          return Vector<T, 1>{*x};
      };
      auto low = load(from), high = low;
      for (int64_t t = 1; t < tokens; ++t) {
        from += p.cache.row;
        const auto x = load(from);
#pragma unroll
        for (int e = 0; e < kWidth; ++e) {
          const float value = to_float(x[e]);
          if (value < to_float(low[e]) || value != value) low[e] = x[e];
          if (value > to_float(high[e]) || value != value) high[e] = x[e];
        }
      }
      T* const to_low = p.page_min.at<T>(0, page, head) + c;
      T* const to_high = p.page_max.at<T>(0, page, head) + c;
      if constexpr (kWidth > 1) {
        store_vector(to_low, low);
        store_vector(to_high, high);
      } else {
        *to_low = low[0];
        *to_high = high[0];
      }
    }
  }
}

template <class T>
void run(const PageStatsParams& p, NativeStream stream) {
  // A decode step has one page a sequence, a prefill many: blocks for both.
  constexpr int64_t kMostBlocks = 2048;
  const int64_t across = std::clamp<int64_t>(kMostBlocks / p.sequences, 1, std::max<int64_t>(p.table_pages, 1));
  const dim3 grid(static_cast<unsigned>(across * p.sequences));
  constexpr int kWidth = 16 / static_cast<int>(sizeof(T));
  if (p.aligned)
    launch(page_stats_kernel<T, kWidth>, grid, dim3(kThreads), 0, stream, p, across);
  else
    launch(page_stats_kernel<T, 1>, grid, dim3(kThreads), 0, stream, p, across);
}

}  // namespace

void kv_page_stats(const PageStatsParams& p, NativeStream stream) {
  if (p.validate) validate("kv_page_stats", p, stream);
  if (p.sequences == 0 || p.heads == 0 || p.dim == 0) return;
  switch (p.dtype) {
    case DType::f16: return run<half_t>(p, stream);
    case DType::bf16: return run<bfloat16_t>(p, stream);
    default: return run<float>(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

#include <algorithm>

#include "device/launch.h"
#include "device/block_divide.h"
#include "ops/kv_cache/kv_select.h"
#include "ops/attention/top_keys.cuh"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// If the row keeps its previous choice: cos(q, q_ref) over the heads of the group is at least theta. The same in every block.
template <class T>
CUL_DEVICE_FN bool keeps_previous(const KvSelectParams& p, int64_t b, int64_t head) {
  if (!p.q_ref.data) return false;
  CUL_SHARED(float, sums, [3][kWarps]);
  float product = 0, own = 0, other = 0;
  const int dim = static_cast<int>(p.dim), span = static_cast<int>(p.group) * dim;
  for (int i = static_cast<int>(threadIdx.x); i < span; i += kThreads) {
    const int64_t g = head * p.group + i / dim, c = i % dim;
    const float x = to_float(p.q.at<const T>(0, b, g)[c]), y = to_float(p.q_ref.at<const T>(0, b, g)[c]);
    product = fmaf(x, y, product);
    own = fmaf(x, x, own);
    other = fmaf(y, y, other);
  }
  product = warp_sum(product);
  own = warp_sum(own);
  other = warp_sum(other);
  if (threadIdx.x % 32 == 0) {
    sums[0][threadIdx.x / 32] = product;
    sums[1][threadIdx.x / 32] = own;
    sums[2][threadIdx.x / 32] = other;
  }
  __syncthreads();
  product = own = other = 0;
  for (int w = 0; w < kWarps; ++w) {
    product += sums[0][w];
    own += sums[1][w];
    other += sums[2][w];
  }
  __syncthreads();
  return own > 0 && other > 0 && product * rsqrtf(own) * rsqrtf(other) >= p.theta;
}

// Computes: keys of the scores sum over the group and D of max(q min, q max), of the pages that are not forced
// Shapes:   q [B,Hq,D], page_min, page_max [P,Hkv,D] -> keys [B,Hkv,maxP]
// Layouts:  rows anywhere, channels contiguous
// Tiles:    a page a warp and step; a block has every across-th group of a row's pages
// Shared:   the group's queries in f32
// Order:    a lane every 32nd channel, heads within a channel; lanes by halves
// Numerics: f32. Equal statistics give equal scores
// Needs:    sm_80. Limit: the bytes of the statistics, once
// Source:   Quest, arXiv:2406.10774
template <class T>
__global__ void __launch_bounds__(kThreads) page_scores_kernel(KvSelectParams p, int across) {
  CUL_DYNAMIC_SHARED(float, q, 16);
  const int64_t row = blockIdx.x / across, part = blockIdx.x % across;
  const auto [b, head] = block_divide(row, p.kv_heads);
  const int64_t n = min(int64_t{p.page_count[b]}, p.table_pages);
  const KvSelectParams::Choice choice = p.choice(n);
  if (choice.free <= 0 || keeps_previous<T>(p, b, head)) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int dim = static_cast<int>(p.dim), group = static_cast<int>(p.group);
  for (int i = static_cast<int>(threadIdx.x); i < group * dim; i += kThreads)
    q[i] = to_float(p.q.at<const T>(0, b, head * group + i / dim)[i % dim]);
  __syncthreads();
  for (int64_t j = choice.begin + part * kWarps + threadIdx.x / 32; j < choice.end; j += int64_t{across} * kWarps) {
    const int32_t page = p.page_table[b * p.page_table_stride + j];
    float sum = 0;
    if (page >= 0) {
      const T* const low = p.page_min.at<const T>(0, page, head);
      const T* const high = p.page_max.at<const T>(0, page, head);
      for (int c = lane; c < dim; c += 32) {
        const float a = to_float(low[c]), z = to_float(high[c]);
        for (int g = 0; g < group; ++g) {
          const float x = q[g * dim + c] * a, y = q[g * dim + c] * z;
          sum += x > y || x != x ? x : y;
        }
      }
      sum = warp_sum(sum);
    }
    if (lane == 0) p.keys[row * p.table_pages + j] = order_key(page >= 0 ? sum : -__builtin_huge_valf());
  }
}

// Computes: the chosen pages of each row by their keys, or the previous choice
// Shapes:   keys [B,Hkv,maxP] -> idx [B,Hkv,topk] ascending, -1 padded, count [B,Hkv]
// Layouts:  as the operands
// Tiles:    a row a block
// Shared:   a histogram of 256 bins
// Order:    none: counts are integers
// Numerics: exact; ties go to the lower page
// Needs:    sm_80. Limit: five looks at the keys, from L2
// Source:   radix selection
template <class T>
__global__ void __launch_bounds__(kThreads) select_pages_kernel(KvSelectParams p) {
  CUL_SHARED(BlockKeys<kThreads>::Shared, shared, );
  const int64_t row = blockIdx.x;
  const auto [b, head] = block_divide(row, p.kv_heads);
  int32_t* const idx = p.idx.at<int32_t>(0, b, head);
  int32_t* const count = p.count + b * p.count_stride + head;
  BlockKeys<kThreads> block{shared};
  if (keeps_previous<T>(p, b, head)) {
    const int32_t* const previous = p.prev_idx.at<const int32_t>(0, b, head);
    int sum = 0;
    for (int64_t first = 0; first < p.topk; first += kThreads) {
      const int64_t i = first + threadIdx.x;
      const int32_t page = i < p.topk ? previous[i] : -1;
      if (i < p.topk) idx[i] = page;
      sum += __syncthreads_count(page >= 0);
    }
    if (threadIdx.x == 0) *count = sum;
    return;
  }
  const int64_t n = min(int64_t{p.page_count[b]}, p.table_pages);
  const KvSelectParams::Choice choice = p.choice(n);
  const uint32_t* const keys = p.keys + row * p.table_pages + choice.begin;
  for (int64_t j = threadIdx.x; j < choice.begin; j += kThreads) idx[j] = static_cast<int32_t>(j);
  int64_t chosen = choice.begin;
  if (choice.free > 0) {
    const int64_t candidates = choice.end - choice.begin;
    const auto key = [&](int64_t i) { return keys[i]; };
    const TopKeys top = block.top(candidates, choice.free, key);
    chosen += block.emit(candidates, top, key, [&](int64_t i, int64_t at) {
      idx[choice.begin + at] = static_cast<int32_t>(choice.begin + i);
    });
  }
  for (int64_t j = choice.end + threadIdx.x; j < n; j += kThreads)
    idx[chosen + j - choice.end] = static_cast<int32_t>(j);
  chosen += n - choice.end;
  for (int64_t i = chosen + threadIdx.x; i < p.topk; i += kThreads) idx[i] = -1;
  if (threadIdx.x == 0) *count = static_cast<int32_t>(chosen);
}

template <class T>
void run(const KvSelectParams& p, NativeStream stream) {
  const int64_t rows = p.sequences * p.kv_heads;
  // A warp has a few pages, and all rows together some blocks for each multiprocessor.
  const int64_t across = std::clamp<int64_t>((p.table_pages + 4 * kWarps - 1) / (4 * kWarps), 1, std::max<int64_t>(2048 / rows, 1));
  launch(page_scores_kernel<T>, dim3(static_cast<unsigned>(across * rows)), dim3(kThreads),
         static_cast<size_t>(p.group * p.dim) * sizeof(float), stream, p, across);
  launch(select_pages_kernel<T>, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream, p);
}

}  // namespace

void kv_select(const KvSelectParams& p, NativeStream stream) {
  if (p.validate) validate("kv_select", p, stream);
  if (p.sequences == 0) return;
  switch (p.dtype) {
    case DType::f16: return run<half_t>(p, stream);
    case DType::bf16: return run<bfloat16_t>(p, stream);
    default: return run<float>(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

#include <algorithm>

#include "device/launch.h"
#include "device/block_divide.h"
#include "ops/kv_cache/kv_merge.h"
#include "ops/attention/top_keys.cuh"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
enum Flag : uint8_t { kAlone = 1, kFirst = 2 };

// What the kernels share: the workspace, by head and token.
struct Work {
  uint8_t* flags;
  int32_t* begin;
  int32_t* end;  // of the run of an output row; -1 where there is none
  float* distance;  // first 1 for a token that joins its predecessor's run, else 0; then from the pivot

  explicit Work(const KvMergeParams& p)
      : flags(static_cast<uint8_t*>(p.workspace) + p.plan.flags_at),
        begin(reinterpret_cast<int32_t*>(static_cast<uint8_t*>(p.workspace) + p.plan.begin_at)),
        end(reinterpret_cast<int32_t*>(static_cast<uint8_t*>(p.workspace) + p.plan.end_at)),
        distance(reinterpret_cast<float*>(static_cast<uint8_t*>(p.workspace) + p.plan.distance_at)) {}
};

CUL_DEVICE_FN float mass_of(const KvMergeParams& p, int64_t token, int64_t head) {
  return *p.mass.at<const float>(0, token, head);
}

// Computes: the tokens of largest mass of each sequence and head, which stay alone, and the first token of each
// Shapes:   attn_mass f32 [T,Hkv] -> flags [Hkv,T]
// Layouts:  rows anywhere
// Tiles:    a sequence and head a block
// Shared:   a histogram of 256 bins
// Order:    none: counts are integers
// Numerics: exact; ties go to the lower token
// Needs:    sm_80. Limit: five looks at the masses
// Source:   radix selection
__global__ void __launch_bounds__(kThreads) merge_flags_kernel(KvMergeParams p, Work work) {
  CUL_SHARED(BlockKeys<kThreads>::Shared, shared, );
  const auto [b, head] = block_divide(blockIdx.x, p.heads);
  const int64_t first = p.cu_seqlens[b], length = p.cu_seqlens[b + 1] - first;
  uint8_t* const flags = work.flags + head * p.tokens + first;
  for (int64_t i = threadIdx.x; i < length; i += kThreads) {
    flags[i] = i == 0 ? kFirst : 0;
    work.distance[head * p.tokens + first + i] = 0;
  }
  const int64_t count = p.protected_of(length);
  if (count <= 0) return;
  __syncthreads();
  const auto key = [&](int64_t i) { return order_key(mass_of(p, first + i, head)); };
  BlockKeys<kThreads> block{shared};
  const TopKeys top = block.top(length, count, key);
  block.emit(length, top, key, [&](int64_t i, int64_t) { flags[i] |= kAlone; });
}

// Computes: which tokens join the run of their predecessor
// Shapes:   k [T,Hkv,D], flags -> 0 or 1 in distance [Hkv,T]
// Layouts:  rows anywhere, channels contiguous
// Tiles:    a token and head a warp
// Shared:   none
// Order:    a lane every 32nd channel; lanes by halves
// Numerics: products and sums of squares f32, compared in f64
// Needs:    sm_80. Limit: the bytes of k, twice from L2
// Source:   KVMerger, arXiv:2407.08454
template <class T>
__global__ void __launch_bounds__(kThreads) merge_joins_kernel(KvMergeParams p, Work work) {
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, head = item / p.tokens, token = item % p.tokens;
  if (head >= p.heads || token == 0 || token >= p.cu_seqlens[p.sequences]) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint8_t* const flags = work.flags + head * p.tokens + token;
  if ((flags[0] & (kAlone | kFirst)) || (flags[-1] & kAlone)) return;
  const T* const a = p.k.at<const T>(0, token, head);
  const T* const z = p.k.at<const T>(0, token - 1, head);
  float product = 0, own = 0, other = 0;
  for (int64_t c = lane; c < p.key_dim; c += 32) {
    const float x = to_float(a[c]), y = to_float(z[c]);
    product = fmaf(x, y, product);
    own = fmaf(x, x, own);
    other = fmaf(y, y, other);
  }
  product = warp_sum(product);
  own = warp_sum(own);
  other = warp_sum(other);
  if (lane == 0 && p.similar(product, own, other)) work.distance[head * p.tokens + token] = 1;
}

// Computes: the runs of each sequence and head: where each begins and ends, how many there are
// Shapes:   joins [Hkv,T] -> begin, end i32 [Hkv,T] by output row, count [B,Hkv]
// Layouts:  as the workspace
// Tiles:    a sequence and head a block
// Shared:   counts of the warps
// Order:    tokens ascending
// Numerics: exact
// Needs:    sm_80. Limit: the bytes of the flags
// Source:   a scan
__global__ void __launch_bounds__(kThreads) merge_runs_kernel(KvMergeParams p, Work work) {
  CUL_SHARED(BlockKeys<kThreads>::Shared, shared, );
  BlockKeys<kThreads> block{shared};
  const auto [b, head] = block_divide(blockIdx.x, p.heads);
  const int64_t first = p.cu_seqlens[b], length = p.cu_seqlens[b + 1] - first;
  const int64_t at = head * p.tokens + first;
  int64_t runs = 0;
  for (int64_t from = 0; from < length; from += kThreads) {
    const int64_t i = from + threadIdx.x;
    const bool starts = i < length && work.distance[at + i] == 0;
    int total = 0;
    const int64_t run = runs + block.before(starts, static_cast<int>(from / kThreads % 2), total);
    if (starts) {
      work.begin[at + run] = static_cast<int32_t>(i);
      if (run > 0) work.end[at + run - 1] = static_cast<int32_t>(i);
    }
    runs += total;
  }
  if (threadIdx.x == 0) {
    if (runs > 0) work.end[at + runs - 1] = static_cast<int32_t>(length);
    p.count[b * p.count_stride + head] = static_cast<int32_t>(runs);
  }
  for (int64_t i = runs + threadIdx.x; i < length; i += kThreads) work.end[at + i] = -1;
}

// Computes: one row of the output: its run merged around the token of largest mass, or zeros
// Shapes:   k [T,Hkv,D], v [T,Hkv,Dv], runs -> merged_k, merged_v, origin
// Layouts:  rows anywhere, channels contiguous
// Tiles:    an output row and head a warp
// Shared:   none
// Order:    tokens of the run ascending; a lane every 32nd channel
// Numerics: f32, one rounding; a run of one token is copied
// Needs:    sm_80. Limit: the bytes of k twice, of v and of the results once
// Source:   KVMerger, arXiv:2407.08454
template <class T>
__global__ void __launch_bounds__(kThreads) merge_rows_kernel(KvMergeParams p, Work work) {
  const int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, head = item / p.tokens, row = item % p.tokens;
  if (head >= p.heads || row >= p.cu_seqlens[p.sequences]) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // The last sequence that begins at or before the row; empty ones before it begin there too.
  int64_t low = 0, high = p.sequences;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (p.cu_seqlens[middle] <= row ? low : high) = middle;
  }
  const int64_t first = p.cu_seqlens[low], at = head * p.tokens;
  T* const merged_k = p.merged_k.at<T>(0, row, head);
  T* const merged_v = p.merged_v.at<T>(0, row, head);
  int32_t* const origin = p.origin.at<int32_t>(0, row, head);
  const int end = work.end[at + row];
  if (end < 0) {
    for (int64_t c = lane; c < p.key_dim; c += 32) merged_k[c] = T{};
    for (int64_t c = lane; c < p.value_dim; c += 32) merged_v[c] = T{};
    if (lane == 0) *origin = -1;
    return;
  }
  const int begin = work.begin[at + row];
  uint64_t best = 0;  // (mass, inverted index)
  for (int i = begin + lane; i < end; i += 32) {
    const uint64_t key = uint64_t{order_key(mass_of(p, first + i, head))} << 32 | (0xffffffffu - static_cast<uint32_t>(i));
    best = max(best, key);
  }
  best = warp_max(best);
  const int pivot = static_cast<int>(0xffffffffu - static_cast<uint32_t>(best));
  if (lane == 0) *origin = pivot;
  if (end - begin == 1) {
    const T* const k = p.k.at<const T>(0, first + begin, head);
    const T* const v = p.v.at<const T>(0, first + begin, head);
    for (int64_t c = lane; c < p.key_dim; c += 32) merged_k[c] = k[c];
    for (int64_t c = lane; c < p.value_dim; c += 32) merged_v[c] = v[c];
    return;
  }
  const T* const center = p.k.at<const T>(0, first + pivot, head);
  float* const distances = work.distance + at + first;
  float spread = 0;
  for (int i = begin; i < end; ++i) {
    const T* const k = p.k.at<const T>(0, first + i, head);
    float sum = 0;
    for (int64_t c = lane; c < p.key_dim; c += 32) {
      const float x = to_float(k[c]) - to_float(center[c]);
      sum = fmaf(x, x, sum);
    }
    sum = warp_sum(sum);
    spread += sum;
    if (lane == 0) distances[i] = sum;
  }
  __syncwarp();
  spread /= static_cast<float>(end - begin);
  const auto weight = [&](int i) { return spread == 0 ? 1.0f : expf(-distances[i] / (2 * spread)); };
  float weights = 0;
  for (int i = begin; i < end; ++i) weights += weight(i);
  const float factor = 1 / weights;
  const auto merge = [&](const HeadRows& from, T* to, int64_t dim) {
    for (int64_t c = lane; c < dim; c += 32) {
      float sum = 0;
      for (int i = begin; i < end; ++i) sum = fmaf(weight(i), to_float(from.at<const T>(0, first + i, head)[c]), sum);
      to[c] = from_float<T>(sum * factor);
    }
  };
  merge(p.k, merged_k, p.key_dim);
  merge(p.v, merged_v, p.value_dim);
}

template <class T>
void run(const KvMergeParams& p, NativeStream stream) {
  const Work work(p);
  const dim3 sequences(static_cast<unsigned>(p.sequences * p.heads)), tokens(static_cast<unsigned>((p.tokens * p.heads + kWarps - 1) / kWarps));
  launch(merge_flags_kernel, sequences, dim3(kThreads), 0, stream, p, work);
  if (p.tokens > 0) launch(merge_joins_kernel<T>, tokens, dim3(kThreads), 0, stream, p, work);
  launch(merge_runs_kernel, sequences, dim3(kThreads), 0, stream, p, work);
  if (p.tokens > 0) launch(merge_rows_kernel<T>, tokens, dim3(kThreads), 0, stream, p, work);
}

}  // namespace

void kv_merge(const KvMergeParams& p, NativeStream stream) {
  if (p.validate) validate("kv_merge", p, stream);
  if (p.sequences == 0 || p.heads == 0) return;
  switch (p.dtype) {
    case DType::f16: return run<half_t>(p, stream);
    case DType::bf16: return run<bfloat16_t>(p, stream);
    default: return run<float>(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

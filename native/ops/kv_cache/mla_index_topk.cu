#include "device/barrier.h"
#include "device/launch.h"
#include "device/mma.h"
#include "ops/kv_cache/mla_index_topk.h"
#include "ops/attention/top_keys.cuh"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32, kKeys = 64, kDim = static_cast<int>(kIndexDim);
constexpr int kPitch = kDim + 8;  // halves: ldmatrix meets no bank twice
static_assert(16 * kWarps == kIndexHeads);

// How many candidates a block holds: a tile of keys beyond what is kept.
constexpr int capacity_of(int64_t topk) { return static_cast<int>(topk > kKeys ? 2 * topk : topk + kKeys); }
constexpr size_t shared_bytes(int64_t topk) {
  return static_cast<size_t>(kKeys * kPitch * 2 + (kWarps + 1) * kKeys * 4 + capacity_of(topk) * 8);
}

// Four e4m3 as two pairs of f16, exactly.
CUL_DEVICE_FN uint2 widen(uint32_t four) {
  const auto value = [&](int i) { return to_float(float8_e4m3_t{static_cast<uint8_t>(four >> (8 * i))}); };
  return make_uint2(pack2<half_t>(value(0), value(1)), pack2<half_t>(value(2), value(3)));
}

// Where candidates are kept: the topk so far and what has come since, by ascending position.
struct Candidates {
  uint32_t* keys;
  int32_t* positions;

  // Leaves the topk of `count`; returns the least key among them.
  template <class Block>
  CUL_DEVICE_FN uint32_t thin(Block& block, int64_t count, int64_t topk) {
    const auto key = [&](int64_t i) { return keys[i]; };
    const TopKeys top = block.top(count, topk, key);
    block.keep(count, top, keys, positions);
    return top.least;
  }
};

// Computes: of a query's keys, or of one split of them, the topk by sum_j w_j max(q_j . k, 0), ties to the lower position
// Shapes:   q e4m3 [T,64,128], keys u8 [P,page,132], weights f32 [T,64] -> idx i32 [T,topk], or candidates [T,splits,topk]
// Layouts:  rows of keys are 33 words, anywhere
// Tiles:    a query a block: 64 heads x 64 keys, 16 heads a warp
// Shared:   a tile of keys in f16, rows padded by 16 bytes; partial scores; up to 2 topk candidates
// Order:    channels as mma has them; heads: rows g, g + 8, lanes by halves, warps ascending
// Numerics: e4m3 is exact in f16, products and sums f32
// Needs:    sm_80 (mma.m16n8k16). Limit: 16384 operations a visible pair; scores never leave the block
// Source:   DeepSeek-V3.2-Exp, arXiv:2512.02556; streaming selection ours
__global__ void __launch_bounds__(kThreads) index_topk_kernel(IndexTopkParams p) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  CUL_SHARED(BlockKeys<kThreads>::Shared, search, );
  auto* const tile = reinterpret_cast<half_t*>(shared);
  auto* const scales = reinterpret_cast<float*>(shared + kKeys * kPitch * 2);
  float* const partial = scales + kKeys;  // [warps][keys]
  const int capacity = capacity_of(p.topk);
  Candidates candidates{reinterpret_cast<uint32_t*>(partial + kWarps * kKeys), nullptr};
  candidates.positions = reinterpret_cast<int32_t*>(candidates.keys + capacity);
  BlockKeys<kThreads> block{search};
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto [token, split] = block_divide(blockIdx.x, p.plan.splits);
  if (token >= p.cu_q[p.sequences]) return;
  int64_t low = 0, high = p.sequences;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (p.cu_q[middle] <= token ? low : high) = middle;
  }
  const int64_t b = low, end_of_query = min(p.visible(b, token), p.table_pages * p.page_size);
  const int64_t begin = split * p.plan.split_keys, end = min(begin + p.plan.split_keys, end_of_query);

  // The warp's 16 heads as operand A.
  uint32_t q[kDim / 16][4];
  const auto pair = [&](int row, int c) {
    const auto* const x = p.q.at<const uint8_t>(0, token, warp * 16 + row) + c;
    return pack2<half_t>(to_float(float8_e4m3_t{x[0]}), to_float(float8_e4m3_t{x[1]}));
  };
#pragma unroll
  for (int c = 0; c < kDim / 16; ++c)
#pragma unroll
    for (int i = 0; i < 4; ++i) q[c][i] = pair(lane / 4 + i % 2 * 8, c * 16 + i / 2 * 8 + lane % 4 * 2);
  const float* const weights = p.weights + token * p.weights_stride + warp * 16;
  const float weight[2] = {weights[lane / 4], weights[lane / 4 + 8]};

  int64_t count = 0;
  uint32_t least = 0;
  bool full = false;
  for (int64_t first = begin; first < end; first += kKeys) {
    __syncthreads();  // the tile before has been used
    for (int i = thread; i < kKeys * 33; i += kThreads) {
      const int key = i / 33, word = i % 33;
      uint32_t four = 0;
      if (first + key < end) {
        const auto [page, row] = block_divide(first + key, p.page_size);
        const int32_t place = p.page_table[b * p.page_table_stride + page];
        if (place >= 0) four = reinterpret_cast<const uint32_t*>(p.keys.at<const uint8_t>(place, row, 0))[word];
      }
      if (word < 32)
        *reinterpret_cast<uint2*>(tile + key * kPitch + 4 * word) = widen(four);
      else
        scales[key] = __uint_as_float(four);
    }
    __syncthreads();
    float s[kKeys / 8][4] = {};
#pragma unroll
    for (int c = 0; c < kDim / 16; ++c)
#pragma unroll
      for (int i = 0; i < kKeys / 16; ++i) {
        uint32_t k[4];
        ldmatrix_x4(k, shared_address(tile + (i * 16 + lane / 16 * 8 + lane % 8) * kPitch + c * 16 + lane / 8 % 2 * 8));
        mma_m16n8k16<half_t>(s[2 * i], q[c], k[0], k[1]);
        mma_m16n8k16<half_t>(s[2 * i + 1], q[c], k[2], k[3]);
      }
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int key = i * 8 + lane % 4 * 2 + j;
        float sum = 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float x = s[i][2 * half + j] * scales[key];
          sum = fmaf(weight[half], x < 0 ? 0.0f : x, sum);
        }
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) sum += __shfl_xor_sync(kFullMask, sum, offset);
        if (lane < 4) partial[warp * kKeys + key] = sum;
      }
    __syncthreads();
    float score = 0;
    if (thread < kKeys)
#pragma unroll
      for (int w = 0; w < kWarps; ++w) score += partial[w * kKeys + thread];
    const uint32_t key = order_key(score);
    // Positions ascend: an equal of the least kept key is too late.
    const bool candidate = thread < kKeys && first + thread < end && (!full || key > least);
    int total = 0;
    const int at = block.before(candidate, static_cast<int>(first / kKeys % 2), total);
    if (candidate) {
      candidates.keys[count + at] = key;
      candidates.positions[count + at] = static_cast<int32_t>(first + thread);
    }
    count += total;
    if (count + kKeys > capacity) {
      __syncthreads();
      least = candidates.thin(block, count, p.topk);
      count = p.topk;
      full = true;
    }
  }
  __syncthreads();
  if (count > p.topk) {
    candidates.thin(block, count, p.topk);
    count = p.topk;
    __syncthreads();
  }
  if (p.plan.splits == 1) {
    int32_t* const idx = p.idx + token * p.idx_stride;
    for (int64_t i = thread; i < p.topk; i += kThreads) {
      const int64_t position = i < count ? candidates.positions[i] : -1;
      idx[i] = static_cast<int32_t>(p.slots && position >= 0 ? p.slot(b, position) : position);
    }
    return;
  }
  auto* const base = static_cast<char*>(p.workspace);
  const int64_t to = int64_t{blockIdx.x} * p.topk;
  for (int64_t i = thread; i < count; i += kThreads) {
    reinterpret_cast<uint32_t*>(base + p.plan.keys_at)[to + i] = candidates.keys[i];
    reinterpret_cast<int32_t*>(base + p.plan.positions_at)[to + i] = candidates.positions[i];
  }
  if (thread == 0) reinterpret_cast<int32_t*>(base + p.plan.counts_at)[blockIdx.x] = static_cast<int32_t>(count);
}

// Computes: the topk of the candidates of a query's splits
// Shapes:   keys, positions [T,splits,topk], counts [T,splits] -> idx i32 [T,topk]
// Layouts:  as the workspace; splits hold ascending positions, and so do they all one after the other
// Tiles:    a query a block
// Shared:   a histogram of 256 bins
// Order:    none: counts are integers
// Numerics: exact; ties go to the lower position
// Needs:    sm_80. Limit: five looks at the candidates, from L2
// Source:   radix selection
__global__ void __launch_bounds__(kThreads) index_merge_kernel(IndexTopkParams p) {
  CUL_SHARED(BlockKeys<kThreads>::Shared, search, );
  BlockKeys<kThreads> block{search};
  const int64_t token = blockIdx.x;
  if (token >= p.cu_q[p.sequences]) return;
  int64_t low = 0, high = p.sequences;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (p.cu_q[middle] <= token ? low : high) = middle;
  }
  const auto* const base = static_cast<const char*>(p.workspace);
  const auto* const keys = reinterpret_cast<const uint32_t*>(base + p.plan.keys_at) + token * p.plan.splits * p.topk;
  const auto* const positions = reinterpret_cast<const int32_t*>(base + p.plan.positions_at) + token * p.plan.splits * p.topk;
  const auto* const counts = reinterpret_cast<const int32_t*>(base + p.plan.counts_at) + token * p.plan.splits;
  int64_t total = 0;
  for (int64_t s = 0; s < p.plan.splits; ++s) total += counts[s];
  // Places without a candidate have key 0, which no score has: it is not chosen while there are others.
  const auto key = [&](int64_t i) {
    const auto [split, entry] = block_divide(i, p.topk);
    return entry < counts[split] ? keys[i] : 0u;
  };
  int32_t* const idx = p.idx + token * p.idx_stride;
  const int64_t wanted = min(total, p.topk);
  int64_t chosen = 0;
  if (wanted > 0) {
    const TopKeys top = block.top(p.plan.splits * p.topk, wanted, key);
    chosen = block.emit(p.plan.splits * p.topk, top, key, [&](int64_t i, int64_t at) {
      idx[at] = static_cast<int32_t>(p.slots ? p.slot(low, positions[i]) : positions[i]);
    });
  }
  for (int64_t i = chosen + threadIdx.x; i < p.topk; i += kThreads) idx[i] = -1;
}

}  // namespace

void mla_index_topk(const IndexTopkParams& p, NativeStream stream) {
  if (p.validate) validate("mla_index_topk", p, stream);
  if (p.tokens == 0 || p.sequences == 0) return;
  launch(index_topk_kernel, dim3(static_cast<unsigned>(p.tokens * p.plan.splits)), dim3(kThreads), shared_bytes(p.topk), stream, p);
  if (p.plan.splits > 1) launch(index_merge_kernel, dim3(static_cast<unsigned>(p.tokens)), dim3(kThreads), 0, stream, p);
}

}  // namespace culebra::CUL_DEVICE_NS

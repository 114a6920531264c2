#include "ops/moe/moe_align.h"

#include <algorithm>

#include "device/atomic.h"
#include "device/barrier.h"
#include "device/launch.h"
#include "device/validate.h"
#include "device/warp.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kWarps = 8, kSumThreads = 1024;
constexpr int64_t kSharedBytes = 48 << 10;  // counters of a block; more experts than that are counted in the workspace

// A warp's chunk of slots and its counters: in shared memory, or where they end up.
struct Chunk {
  int64_t index, begin, end;
  int32_t* counters;
  bool shared;
};
CUL_DEVICE_FN Chunk chunk_of(const MoeAlignParams& p, int32_t* memory, bool shared) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t index = int64_t{blockIdx.x} * (blockDim.x / 32) + warp, begin = index * p.chunk, end = begin + p.chunk;
  return {index, begin, end < p.slots() ? end : p.slots(), shared ? memory + int64_t{warp} * p.local_experts : p.counts(index), shared};
}

// Computes: how many slots of each local expert a chunk has; fills sorted and block_expert with what stands where no slot does.
// Shapes:   ids [T,k] -> counts [chunks, local_experts]; sorted [C], block_expert [C / block].
// Layouts:  ids of any row stride, the others compact.
// Tiles:    a chunk of 512 slots or more a warp.
// Shared:   a counter an expert a warp, where they fit.
// Order:    integer counts: none.
// Numerics: integers.
// Needs:    sm_80. Limit: 4 T k bytes of ids, 4 C of sorted.
// Source:   README.md, "Alignment".
__global__ void __launch_bounds__(kWarps * 32) count_slots(MoeAlignParams p, bool shared) {
  CUL_DYNAMIC_SHARED(int32_t, memory, 16);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Chunk chunk = chunk_of(p, memory, shared);
  if (chunk.index < p.chunks) {
    for (int e = lane; e < p.local_experts; e += 32) chunk.counters[e] = 0;
    __syncwarp();
    for (int64_t slot = chunk.begin + lane; slot < chunk.end; slot += 32)
      if (const int32_t e = p.local_expert(slot); e >= 0) atomicAdd(&chunk.counters[e], 1);
    __syncwarp();
    if (shared)
      for (int e = lane; e < p.local_experts; e += 32) p.counts(chunk.index)[e] = chunk.counters[e];
  }
  const int64_t threads = int64_t{gridDim.x} * blockDim.x, thread = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (int64_t i = thread; i < p.capacity; i += threads) p.sorted[i] = static_cast<int32_t>(p.slots());
  for (int64_t i = thread; i < p.blocks; i += threads) p.block_expert[i] = -1;
}

// The sum of `value` over the threads before this one, and over all of them.
struct BlockSum {
  uint64_t before, total;
};
CUL_DEVICE_FN BlockSum sum_of_block(uint64_t value) {
  CUL_SHARED(uint64_t, of_warp, [kSumThreads / 32]);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const uint64_t up_to_here = warp_inclusive_sum(value);
  if (threadIdx.x % 32 == 31) of_warp[warp] = up_to_here;
  __syncthreads();
  BlockSum sum{up_to_here - value, 0};
#pragma unroll
  for (int w = 0; w < kSumThreads / 32; ++w) {
    if (w < warp) sum.before += of_warp[w];
    sum.total += of_warp[w];
  }
  __syncthreads();
  return sum;
}

// Computes: counts become those of the chunks before; where each expert begins, with and without padding.
// Shapes:   counts [chunks, local_experts] -> offsets [local_experts + 1], padded_offsets [local_experts], n_padded [1].
// Layouts:  compact.
// Tiles:    one block, an expert a thread.
// Shared:   a sum a warp.
// Order:    chunks ascending, experts ascending.
// Numerics: integers: a count in the low half of a word, a padded one in the high half.
// Needs:    sm_80. Limit: latency: chunks / 8 times that of L2.
// Source:   README.md, "Alignment".
__global__ void __launch_bounds__(kSumThreads) sum_chunks(MoeAlignParams p) {
  uint64_t carry = 0;
  for (int64_t first = 0; first < p.local_experts; first += kSumThreads) {
    const int64_t e = first + threadIdx.x;
    int32_t before = 0;
    if (e < p.local_experts) {
      constexpr int kAtOnce = 8;
      for (int64_t c = 0; c < p.chunks; c += kAtOnce) {
        int32_t counts[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) counts[i] = c + i < p.chunks ? p.counts(c + i)[e] : 0;
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          if (c + i < p.chunks) p.counts(c + i)[e] = before;
          before += counts[i];
        }
      }
    }
    const auto count = static_cast<uint32_t>(before), block = static_cast<uint32_t>(p.block);
    const uint64_t padded = (count + block - 1) / block * block;
    const BlockSum sum = sum_of_block(padded << 32 | count);
    if (e < p.local_experts) {
      const uint64_t at = carry + sum.before;
      p.offsets[e] = static_cast<int64_t>(at & 0xffffffffu);
      p.padded_offsets()[e] = static_cast<int32_t>(at >> 32);
    }
    carry += sum.total;
  }
  if (threadIdx.x == 0) {
    p.offsets[p.local_experts] = static_cast<int64_t>(carry & 0xffffffffu);
    p.n_padded[0] = static_cast<int32_t>(carry >> 32);
  }
}

// Computes: the place of every slot: behind the slots of its expert in earlier chunks and in earlier rounds, in the order of lanes.
// Shapes:   ids [T,k], counts, offsets, padded_offsets -> inverse [T k], sorted, and block_expert of each block that begins.
// Layouts:  ids of any row stride, the others compact.
// Tiles:    a chunk a warp, 32 slots a round.
// Shared:   a counter an expert a warp, where they fit.
// Order:    slots ascending: stable.
// Numerics: integers.
// Needs:    sm_80. Limit: 4 T k bytes of ids, 8 of places.
// Source:   README.md, "Alignment".
__global__ void __launch_bounds__(kWarps * 32) place_slots(MoeAlignParams p, bool shared) {
  CUL_DYNAMIC_SHARED(int32_t, memory, 16);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Chunk chunk = chunk_of(p, memory, shared);
  if (chunk.index >= p.chunks) return;
  if (shared)
    for (int e = lane; e < p.local_experts; e += 32) chunk.counters[e] = p.counts(chunk.index)[e];
  for (int64_t first = chunk.begin; first < chunk.end; first += 32) {
    const int64_t slot = first + lane;
    const bool inside = slot < chunk.end;
    const int32_t e = inside ? p.local_expert(slot) : -1;
    const unsigned same = __match_any_sync(kFullMask, e);
    const int rank = __popc(same & ((1u << lane) - 1));
    __syncwarp();
    const int32_t at = e >= 0 ? chunk.counters[e] + rank : 0;
    __syncwarp();
    if (e >= 0 && rank == 0) chunk.counters[e] = at + __popc(same);
    if (e >= 0) {
      p.inverse[slot] = static_cast<int32_t>(p.offsets[e]) + at;
      const int32_t place = p.padded_offsets()[e] + at;
      p.sorted[place] = static_cast<int32_t>(slot);
      if (at % p.block == 0) p.block_expert[place / p.block] = e;
    } else if (inside) {
      p.inverse[slot] = -1;
    }
  }
}

}  // namespace

void moe_align(const MoeAlignParams& p, NativeStream stream) {
  if (p.validate) validate("moe_align", p, stream);
  const bool shared = 4 * int64_t{p.local_experts} <= kSharedBytes;
  const int64_t warps = shared ? std::clamp<int64_t>(kSharedBytes / (4 * p.local_experts), 1, kWarps) : kWarps;
  const dim3 threads(static_cast<unsigned>(warps * 32));
  const size_t bytes = static_cast<size_t>(shared ? 4 * warps * p.local_experts : 16);
  const int64_t chunk_blocks = (p.chunks + warps - 1) / warps, fill_blocks = p.capacity / (8 * warps * 32);
  const auto blocks = [](int64_t n) { return dim3(static_cast<unsigned>(std::max<int64_t>(n, 1))); };
  launch(count_slots, blocks(std::max(chunk_blocks, std::min<int64_t>(fill_blocks, 1024))), threads, bytes, stream, p, shared);
  launch(sum_chunks, dim3(1), dim3(kSumThreads), 0, stream, p);
  if (p.chunks > 0) launch(place_slots, blocks(chunk_blocks), threads, bytes, stream, p, shared);
}

}  // namespace culebra::CUL_DEVICE_NS

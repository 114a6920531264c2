#include <algorithm>

#include "device/atomic.h"
#include "device/mma.h"
#include "device/validate.h"
#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/half_tile.cuh"
#include "ops/attention/top_keys.cuh"
#include "ops/sparse_attention/estimated_common.cuh"
#include "ops/sparse_attention/hopper_lists.cuh"
#include "ops/sparse_attention/list_tour.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using namespace sale;

// Computes: keys as integers of eight bits, a scale for 16 of them
// Shapes:   k [Tk,Hkv,D] -> i8 [Hkv,Tk,pitch], scales f32 [Hkv,groups]
// Layouts:  rows of pitch, a multiple of 32 bytes, zeros behind D
// Tiles:    a group of keys of a head a block
// Shared:   maxima of the warps
// Order:    maxima: none
// Numerics: round to nearest of x 127 / max |x|; a group with NaN or infinity has scale NaN, and is never kept by it
// Needs:    sm_80. Limit: the bytes of k, once
// Source:   SALE, arXiv:2505.24179, with eight bits for four
template <class T>
__global__ void __launch_bounds__(kThreads) quantize_keys_kernel(Params p, int64_t groups) {
  CUL_SHARED(float, maxima, [kWarps]);
  const auto [head, slot] = block_divide(blockIdx.x, groups);
  const SequenceTile at = find_sequence(p.cu_k, static_cast<int>(p.sequences), 1, kGroup, slot);
  if (at.sequence < 0) return;
  const int64_t first = p.cu_k[at.sequence] + int64_t{at.tile} * kGroup;
  const int keys = static_cast<int>(min(int64_t{kGroup}, p.cu_k[at.sequence + 1] - first)), dim = static_cast<int>(p.dim);
  float largest = 0;
  for (int i = static_cast<int>(threadIdx.x); i < keys * dim; i += kThreads) {
    const float x = fabsf(to_float(p.k.at<const T>(first + i / dim, head)[i % dim]));
    largest = x > largest || x != x ? x : largest;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const float other = __shfl_xor_sync(kFullMask, largest, offset);
    largest = other > largest || other != other ? other : largest;
  }
  if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = largest;
  __syncthreads();
  largest = 0;
  for (int w = 0; w < kWarps; ++w) largest = maxima[w] > largest || maxima[w] != maxima[w] ? maxima[w] : largest;
  const float inverse = largest > 0 ? 127 / largest : 0.0f;
  const int pitch = static_cast<int>(p.estimate_pitch());
  int8_t* const to = in_workspace<int8_t>(p, p.plan.keys_at) + (head * p.key_rows + first) * pitch;
  for (int i = static_cast<int>(threadIdx.x); i < keys * pitch; i += kThreads) {
    const int c = i % pitch;
    const float x = c < dim ? to_float(p.k.at<const T>(first + i / pitch, head)[c]) * inverse : 0.0f;
    to[i] = static_cast<int8_t>(x == x ? rintf(x) : 0.0f);
  }
  if (threadIdx.x == 0) in_workspace<float>(p, p.plan.scales_at)[head * groups + slot] = largest / 127;
}

// The list of a query block of a head: certain blocks, and of the others those with kept(block - certain_begin). All kThreads call.
template <class Kept>
CUL_DEVICE_FN void write_list(const Params& p, int64_t slot, int64_t head, const Params::Span& span, BlockKeys<kThreads>::Shared& scan, Kept kept) {
  const int thread = static_cast<int>(threadIdx.x), begin = static_cast<int>(span.certain_begin), end = static_cast<int>(span.certain_end);
  int32_t* const list = in_workspace<int32_t>(p, p.plan.lists_at) + (slot * p.query_heads + head) * p.plan.list_entries;
  BlockKeys<kThreads> blocks{scan};
  int chosen = 0, which = 0;
  for (int64_t first = 0; first < span.end; first += kThreads) {
    const int64_t j = first + thread;
    bool take = j < span.end;
    if (take && j >= begin && j < end) take = kept(static_cast<int>(j) - begin) != 0;
    int total = 0;
    const int at = chosen + blocks.before(take, which, total);
    which ^= 1;
    if (take) list[at] = static_cast<int32_t>(j);
    chosen += total;
  }
  if (thread == 0) {
    in_workspace<int32_t>(p, p.plan.counts_at)[slot * p.query_heads + head] = chosen;
    if (p.kept) atomicAdd(reinterpret_cast<unsigned long long*>(p.kept + head), static_cast<unsigned long long>(chosen));
  }
}

// Computes: the key blocks of each query block and head: certain ones, and those with an estimated score above a row's threshold
// Shapes:   q [Tq,Hq,D], i8 keys, lse of the certain blocks [Tq,Hq], tau -> lists i32 [slots at once,Hq,entries], counts, kept
// Layouts:  a lane reads a key's channels [t W, t W + W) with W = pitch / 4, and a query's the same: the order within a product is free
// Tiles:    a query block of a head a block; 16 keys a warp and step against 16 kTiles rows in registers, then the next rows
// Shared:   rows as integers, their factors and thresholds; a bit for each key block
// Order:    integer products and ors: none
// Numerics: products exact; one comparison a row and 16 keys, of the largest product
// Needs:    sm_80 (mma.m16n8k32). Limit: 2 D integer operations a pair
// Source:   SALE, arXiv:2505.24179
template <class T, int kSteps, int kTiles>
__global__ void __launch_bounds__(kThreads) estimate_kernel(Params p, int64_t groups, int64_t first_slot) {
  constexpr int kWords = 2 * kSteps, kPitch = 32 * kSteps;  // words of a lane; bytes of a row
  CUL_SHARED(uint32_t, rows, [128 * kPitch / 4]);
  CUL_SHARED(float, factors, [128]);
  CUL_SHARED(float, thresholds, [128]);
  CUL_SHARED(BlockKeys<kThreads>::Shared, scan, );
  CUL_DYNAMIC_SHARED(uint32_t, bits, 16);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto [slot, head] = block_divide(blockIdx.x, p.query_heads);
  const int64_t kv_head = block_divide(head, p.group()).quotient;
  const Block block = find_block(p, first_slot + slot);
  if (block.sequence < 0) return;
  const Params::Span span = p.span(block.index, block.queries, block.keys);
  const int64_t first_query = p.cu_q[block.sequence] + block.index * p.block_q;
  const int count = static_cast<int>(min(p.block_q, block.queries - block.index * p.block_q)), dim = static_cast<int>(p.dim);
  const int first_end = static_cast<int>(block.index * p.block_q + block.keys - block.queries) + 1;  // keys that row 0 sees
  const bool dense = p.dense(head, block.keys);
  const int begin = static_cast<int>(span.certain_begin), end = static_cast<int>(span.certain_end);
  const int words = (end - begin + 31) / 32;
  for (int i = thread; i < words; i += kThreads) bits[i] = dense ? 0xffffffffu : 0u;

  if (!dense && begin < end) {
    const float log_tau = logf(p.tau[head]);
    for (int r = warp; r < 128; r += kWarps) {  // a row a warp; rows that are not there never exceed their threshold
      const T* const q = r < count ? p.q.at<const T>(first_query + r, head) : nullptr;
      float largest = 0;
      for (int c = lane; q && c < dim; c += 32) largest = fmaxf(largest, fabsf(to_float(q[c])));
      largest = warp_max(largest);
      const float inverse = largest > 0 ? 127 / largest : 0.0f;
      auto* const to = reinterpret_cast<int8_t*>(rows + r * (kPitch / 4));
      for (int c = lane; c < kPitch; c += 32) {
        const float x = q && c < dim ? to_float(q[c]) * inverse : 0.0f;
        to[c] = static_cast<int8_t>(x == x ? rintf(x) : 0.0f);
      }
      if (lane == 0) {
        factors[r] = largest / 127 * p.scale;
        thresholds[r] = q ? in_workspace<float>(p, p.plan.lse_at)[(first_query + r) * p.query_heads + head] + log_tau
                          : __builtin_huge_valf();
      }
    }
    __syncthreads();
    const auto* const keys = in_workspace<const int8_t>(p, p.plan.keys_at) +
                             (kv_head * p.key_rows + p.cu_k[block.sequence]) * p.estimate_pitch();
    const float* const scales = in_workspace<const float>(p, p.plan.scales_at) + kv_head * groups + first_group(p, block.sequence);
    const int per_block = static_cast<int>(p.block_k) / kGroup, length = static_cast<int>(block.keys);
#pragma unroll 1
    for (int first_row = 0; first_row < count; first_row += 16 * kTiles) {
      uint32_t a[kTiles][kSteps][4];
      float threshold[kTiles][2], factor[kTiles][2];
#pragma unroll
      for (int i = 0; i < kTiles; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int r = first_row + 16 * i + lane / 4 + 8 * half;
          const uint32_t* const row = rows + r * (kPitch / 4) + lane % 4 * kWords;
#pragma unroll
          for (int s = 0; s < kSteps; ++s) {
            a[i][s][half] = row[2 * s];
            a[i][s][half + 2] = row[2 * s + 1];
          }
          threshold[i][half] = thresholds[r];
          factor[i][half] = factors[r];
        }
#pragma unroll 1
      for (int j = begin + warp; j < end; j += kWarps) {
        bool keep = false;
#pragma unroll 1
        for (int g = j * per_block; g < (j + 1) * per_block && !keep; ++g) {
          if (g * kGroup >= length) break;
          uint32_t k[2][kWords];
#pragma unroll
          for (int n = 0; n < 2; ++n) {
            const int key = min(g * kGroup + 8 * n + lane / 4, length - 1);
            const auto* const from = reinterpret_cast<const uint2*>(keys + int64_t{key} * kPitch) + lane % 4 * kSteps;
#pragma unroll
            for (int s = 0; s < kSteps; ++s) {
              const uint2 two = from[s];
              k[n][2 * s] = two.x;
              k[n][2 * s + 1] = two.y;
            }
          }
          const float scale = scales[g];
          const bool edge = (g + 1) * kGroup > min(first_end + first_row, length);
          bool above = false;
#pragma unroll
          for (int i = 0; i < kTiles; ++i) {
            int s[2][4] = {};
#pragma unroll
            for (int step = 0; step < kSteps; ++step)
#pragma unroll
              for (int n = 0; n < 2; ++n) mma_m16n8k32_s8(s[n], a[i][step], k[n][2 * step], k[n][2 * step + 1]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              // A negative factor, of a negative scale, turns the order round.
              const int sign = factor[i][half] < 0 ? -1 : 1;
              int highest = -0x7fffffff;
              const int seen = min(first_end + first_row + 16 * i + lane / 4 + 8 * half, length);
#pragma unroll
              for (int n = 0; n < 2; ++n)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                  if (!edge || g * kGroup + 8 * n + lane % 4 * 2 + e < seen) highest = max(highest, s[n][2 * half + e] * sign);
              above = above || (highest != -0x7fffffff &&
                                static_cast<float>(highest * sign) * (scale * factor[i][half]) > threshold[i][half]);
            }
          }
          keep = __any_sync(kFullMask, above);
        }
        if (keep && lane == 0) atomicOr(&bits[(j - begin) / 32], 1u << (j - begin) % 32);
      }
    }
  }
  __syncthreads();

  write_list(p, slot, head, span, scan, [&](int i) { return bits[i / 32] >> i % 32 & 1; });
}

// Computes: the lists of blocks whose bits estimate_hopper has set, and of certain ones
// Shapes:   bits u32 [slots at once,Hq,words] -> lists i32 [slots at once,Hq,entries], counts, kept
// Layouts:  as the workspace
// Tiles:    a query block of a head a block
// Shared:   a scan
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of bits and lists, in L2
// Source:   SALE, arXiv:2505.24179
__global__ void __launch_bounds__(kThreads) lists_from_bits_kernel(Params p, int64_t first_slot) {
  CUL_SHARED(BlockKeys<kThreads>::Shared, scan, );
  const auto [slot, head] = block_divide(blockIdx.x, p.query_heads);
  const Block block = find_block(p, first_slot + slot);
  if (block.sequence < 0) return;
  const bool dense = p.dense(head, block.keys);
  const uint32_t* const bits = in_workspace<const uint32_t>(p, p.plan.bits_at) + (slot * p.query_heads + head) * p.plan.bit_words();
  write_list(p, slot, head, p.span(block.index, block.queries, block.keys), scan,
             [&](int i) { return dense ? 1u : bits[i / 32] >> i % 32 & 1; });
}

// Computes: kept = 0, before blocks are counted into it
// Shapes:   kept i64 [Hq]
// Layouts:  contiguous
// Tiles:    one block
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the launch
// Source:   SALE: its count of computed blocks
__global__ void __launch_bounds__(kThreads) clear_kept_kernel(int64_t* kept, int64_t heads) {
  for (int64_t i = threadIdx.x; i < heads; i += kThreads) kept[i] = 0;
}

// Tiles of rows of a head: those of its query blocks, in turn over the certain blocks and over the listed ones.
struct EstimatedTours {
  Params p;
  int32_t tile_rows, per_block;  // tiles of a query block
  int64_t size;                  // bytes of an element
  bool certain;
  int64_t first_slot;            // lists are of the slots from here on

  CUL_DEVICE_FN ListTour tour(int64_t index) const {
    const auto [item, part] = block_divide(index, per_block);
    const auto [slot, head] = block_divide(item, p.query_heads);
    ListTour tour{};
    const Block block = find_block(p, first_slot + slot);
    if (block.sequence < 0 || (certain && p.dense(head, block.keys))) return tour;
    const int64_t from = block.index * p.block_q + part * tile_rows;
    tour.count = static_cast<int>(min(min(int64_t{tile_rows}, p.block_q - part * tile_rows), block.queries - from));
    if (tour.count <= 0) return tour;
    const Params::Span span = p.span(block.index, block.queries, block.keys);
    const int64_t first_query = p.cu_q[block.sequence] + from, kv_head = block_divide(head, p.group()).quotient, first_key = p.cu_k[block.sequence];
    const auto at = [&](const TokenRows& x, int64_t row, int64_t h, int64_t bytes) {
      return static_cast<char*>(x.data) + (row * x.row + h * x.head) * bytes;
    };
    tour.q_rows = at(p.q, first_query, head, size);
    tour.o_rows = at(p.o, first_query, head, size);
    tour.k = at(p.k, first_key, kv_head, size);
    tour.v = at(p.v, first_key, kv_head, size);
    tour.q_stride = p.q.row * size;
    tour.o_stride = p.o.row * size;
    tour.k_stride = p.k.row * size;
    tour.v_stride = p.v.row * size;
    if (certain) {
      tour.lse_rows = reinterpret_cast<char*>(in_workspace<float>(p, p.plan.lse_at) + first_query * p.query_heads + head);
      tour.lse_stride = p.query_heads * 4;
      tour.gap_begin = static_cast<int>(span.certain_begin);
      tour.gap = static_cast<int>(span.certain_end - span.certain_begin);
      tour.entries = static_cast<int>(span.end) - tour.gap;
    } else {
      if (p.lse.data) tour.lse_rows = at(p.lse, first_query, head, 4);
      tour.lse_stride = p.lse.row * 4;
      tour.list = in_workspace<const int32_t>(p, p.plan.lists_at) + (slot * p.query_heads + head) * p.plan.list_entries;
      tour.entries = in_workspace<const int32_t>(p, p.plan.counts_at)[slot * p.query_heads + head];
    }
    tour.block = static_cast<int>(p.block_k);
    tour.keys = static_cast<int>(block.keys);
    tour.first_end = static_cast<int>(from + block.keys - block.queries) + 1;
    tour.causal = true;
    return tour;
  }
};

void attend_hopper(const Params& p, int64_t first_slot, int64_t slots, NativeStream stream) {
  HopperListCall call = hopper_list_call(p, p.block_q, p.block_k, 1);
  const auto* const workspace = static_cast<const char*>(p.workspace);
  call.tours.lists = reinterpret_cast<const int32_t*>(workspace + p.plan.lists_at);
  call.tours.counts = reinterpret_cast<const int32_t*>(workspace + p.plan.counts_at);
  call.tours.pitch = p.plan.list_entries;
  call.tours.by_slot = call.tours.causal = true;
  call.tours.first_slot = first_slot;
  call.tours.slots = slots;
  hopper_list_attention(call, stream);
}

template <class T>
void attend(const Params& p, bool certain, int64_t first_slot, int64_t slots, NativeStream stream) {
  Problem problem{};
  problem.dim = static_cast<int32_t>(p.dim);
  problem.value_dim = static_cast<int32_t>(p.value_dim);
  problem.scale = p.scale;
  problem.aligned = p.aligned;
  problem.anywhere = p.q.data;
  problem.splits = 1;
  EstimatedTours tours{p, sizeof(T) == 2 ? 64 : ListF32Tile::kRows, 1, static_cast<int64_t>(sizeof(T)), certain, first_slot};
  tours.per_block = static_cast<int32_t>((p.block_q + tours.tile_rows - 1) / tours.tile_rows);
  const int64_t tiles = slots * p.query_heads * tours.per_block;
  if constexpr (sizeof(T) == 2) {
    if (p.plan.hopper && !certain)
      attend_hopper(p, first_slot, slots, stream);
    else if (std::max(p.dim, p.value_dim) <= 128)
      launch_half<HalfTile<T, 128>>(problem, tours, tiles, stream);
    else
      launch_half<HalfTile<T, 256>>(problem, tours, tiles, stream);
  } else {
    launch_f32<ListF32Tile>(problem, tours, tiles, stream);
  }
}

template <class T>
void run(const Params& p, NativeStream stream) {
  attend<T>(p, true, 0, p.plan.slots, stream);
  const int64_t groups = p.key_rows / kGroup + p.sequences;
  if (p.key_rows > 0)
    launch(quantize_keys_kernel<T>, dim3(static_cast<unsigned>(groups * p.kv_heads)), dim3(kThreads), 0, stream, p, groups);
  const size_t bits = static_cast<size_t>(p.plan.list_entries / 32 + 1) * 4;
  for (int64_t first = 0; first < p.plan.slots; first += p.plan.slots_at_once) {
    const int64_t slots = std::min(p.plan.slots_at_once, p.plan.slots - first);
    const dim3 blocks(static_cast<unsigned>(slots * p.query_heads));
    if (p.plan.hopper_estimate) {
      estimate_hopper(p, groups, first, slots, stream);
      launch(lists_from_bits_kernel, blocks, dim3(kThreads), 0, stream, p, first);
    } else if (p.dim <= 64)
      launch(estimate_kernel<T, 2, 4>, blocks, dim3(kThreads), bits, stream, p, groups, first);
    else if (p.dim <= 128)
      launch(estimate_kernel<T, 4, 4>, blocks, dim3(kThreads), bits, stream, p, groups, first);
    else
      launch(estimate_kernel<T, 8, 2>, blocks, dim3(kThreads), bits, stream, p, groups, first);
    attend<T>(p, false, first, slots, stream);
  }
}

}  // namespace

void estimated_sparse_attention(const Params& p, NativeStream stream) {
  if (p.validate) validate("estimated_sparse_attention", p, stream);
  if (p.kept) launch(clear_kept_kernel, dim3(1), dim3(kThreads), 0, stream, p.kept, p.query_heads);
  if (p.plan.slots == 0 || p.query_rows == 0) return;
  switch (p.dtype) {
    case DType::f16: return run<half_t>(p, stream);
    case DType::bf16: return run<bfloat16_t>(p, stream);
    default: return run<float>(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

#include "device/atomic.h"
#include "device/barrier.h"
#include "device/mbarrier.h"
#include "device/tensor_map.h"
#include "device/warp.h"
#include "device/wgmma.h"
#include "ops/sparse_attention/estimated_common.cuh"

namespace culebra::CUL_DEVICE_NS::sale {
namespace {

// A unit is up to 64 queries of a query block of one head. Units of a tile share keys: heads of a group, halves of a query block.
constexpr int kUnits = 4, kUnitsOfGroup = 2, kUnitRows = 64, kWarpgroups = kUnits / kUnitsOfGroup, kConsumers = 128 * kWarpgroups;
constexpr int kRow = 128, kTileKeys = 128, kStages = 4, kTileBytes = kTileKeys * kRow, kUnitBytes = kUnitRows * kRow;
constexpr int kKeysAt = kUnits * kUnitBytes, kBarriersAt = kKeysAt + kStages * kTileBytes, kFactorsAt = kBarriersAt + 2 * kStages * 8,
              kBitsAt = kFactorsAt + 2 * kUnits * kUnitRows * 4;

struct Estimate {
  TensorMap keys;  // i8 [Hkv][Tk][128] in boxes of 128 keys
  Params p;
  int64_t groups, first_slot;
  int32_t chunks, parts;  // units of a query block of a head, one or two; tiles of a query block of a KV head
};

// Computes: a bit for each key block of a query block that is not certain: whether an estimated score exceeds its row's threshold
// Shapes:   q [Tq,Hq,D], 64 < D <= 128, i8 keys, lse of the certain blocks [Tq,Hq], tau -> bits u32 [slots at once,Hq,words]
// Layouts:  rows of 128 integers, swizzled; zeros behind D
// Tiles:    four units of 64 rows, two a warpgroup, x 128 keys
// Shared:   rows as integers, four stages of keys, factors and thresholds of rows, bits
// Order:    integer products and ors: none
// Numerics: products exact; one comparison a row and 16 keys, of the largest product, as in estimate_kernel
// Needs:    sm_90a (wgmma, tensor maps, mbarriers). Limit: 2 D integer operations a pair; keys from L2 once for 256 rows
// Source:   SALE, arXiv:2505.24179
template <class T>
__global__ void __launch_bounds__(kConsumers + 128, 1) estimate_hopper_kernel(const __grid_constant__ Estimate e) {
#if CUL_HAS_SM90A
  const Params& p = e.p;
  CUL_DYNAMIC_SHARED(unsigned char, shared, 1024);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const uint32_t base = shared_address(shared), barriers = base + kBarriersAt;
  const auto full = [&](int turn) { return barriers + 8 * (turn % kStages); };
  const auto empty = [&](int turn) { return barriers + 8 * (kStages + turn % kStages); };
  const auto parity = [](int turn) { return static_cast<uint32_t>(turn / kStages & 1); };
  const auto [item, part] = block_divide(blockIdx.x, e.parts);
  const auto [slot, kv_head] = block_divide(item, p.kv_heads);
  const Block block = find_block(p, e.first_slot + slot);
  if (block.sequence < 0) return;
  const Params::Span span = p.span(block.index, block.queries, block.keys);
  const int begin = static_cast<int>(span.certain_begin), end = static_cast<int>(span.certain_end);
  const int block_k = static_cast<int>(p.block_k), first_key = begin * block_k, tiles = (max(end - begin, 0) * block_k + kTileKeys - 1) / kTileKeys;
  const int words = (max(end - begin, 0) + 31) / 32, units = static_cast<int>(p.group()) * e.chunks, first_unit = static_cast<int>(part) * kUnits;
  const auto head_of = [&](int unit) { return kv_head * p.group() + ((first_unit + unit) >> (e.chunks - 1)); };
  const auto first_row_of = [&](int unit) { return ((first_unit + unit) & (e.chunks - 1)) * kUnitRows; };  // within the query block
  const auto works = [&](int unit) { return first_unit + unit < units && !p.dense(head_of(unit), block.keys); };
  if (tiles == 0) return;
  bool any = false;
  for (int unit = 0; unit < kUnits; ++unit) any = any || works(unit);
  if (!any) return;

  float* const factors = reinterpret_cast<float*>(shared + kFactorsAt);
  float* const thresholds = factors + kUnits * kUnitRows;
  uint32_t* const bits = reinterpret_cast<uint32_t*>(shared + kBitsAt);
  if (thread == 0) {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(full(i), 1);
      mbarrier_init(empty(i), kConsumers / 32);
    }
    mbarrier_init_fence();
  }
  for (int i = thread; i < kUnits * words; i += kConsumers + 128) bits[i] = 0;
  __syncthreads();

  if (thread < 128) {
    registers_release<40>();
    if (thread != 0) return;
    const int token = p.cu_k[block.sequence] + first_key;
#pragma unroll 1
    for (int turn = 0; turn < tiles; ++turn) {
      mbarrier_wait(empty(turn), parity(turn) ^ 1u);
      mbarrier_arrive_expect_bytes(full(turn), kTileBytes);
      tensor_copy_3d(base + kKeysAt + turn % kStages * kTileBytes, e.keys, 0, token + turn * kTileKeys, static_cast<int>(kv_head), full(turn));
    }
  } else {
    registers_acquire<232>();
    const int consumer = thread - 128, group = consumer / 128, warp = consumer / 32 % 4, dim = static_cast<int>(p.dim);
    const int64_t first_query = p.cu_q[block.sequence] + block.index * p.block_q;
    const int count = static_cast<int>(min(p.block_q, block.queries - block.index * p.block_q));
    // A row a warp, four channels a lane; rows that are not there never exceed their threshold.
#pragma unroll 4
    for (int i = warp; i < kUnitsOfGroup * kUnitRows; i += 4) {
      const int row = group * kUnitsOfGroup * kUnitRows + i, unit = row / kUnitRows, r = first_row_of(unit) + row % kUnitRows;
      const bool there = works(unit) && r < count;
      const int64_t head = head_of(unit);
      const T* const q = there ? p.q.at<const T>(first_query + r, head) : nullptr;
      float x[4], largest = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        x[j] = there && lane * 4 + j < dim ? to_float(q[lane * 4 + j]) : 0.0f;
        largest = fmaxf(largest, fabsf(x[j]));
      }
      largest = warp_max(largest);
      const float inverse = largest > 0 ? 127 / largest : 0.0f;
      uint32_t four = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float scaled = x[j] * inverse;
        const auto number = static_cast<int8_t>(scaled == scaled ? rintf(scaled) : 0.0f);
        four |= uint32_t{static_cast<uint8_t>(number)} << 8 * j;
      }
      *reinterpret_cast<uint32_t*>(shared + row * kRow + ((lane / 4 ^ row % 8) * 16) + lane % 4 * 4) = four;
      if (lane == 0) {
        factors[row] = largest / 127 * p.scale;
        thresholds[row] = there ? in_workspace<const float>(p, p.plan.lse_at)[(first_query + r) * p.query_heads + head] + logf(p.tau[head])
                                : __builtin_huge_valf();
      }
    }
    fence_async_proxy();
    named_barrier_sync(1 + group, 128);

    float factor[kUnitsOfGroup][2], threshold[kUnitsOfGroup][2];
#pragma unroll
    for (int u = 0; u < kUnitsOfGroup; ++u)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = (group * kUnitsOfGroup + u) * kUnitRows + warp * 16 + lane / 4 + 8 * half;
        factor[u][half] = factors[row];
        threshold[u][half] = thresholds[row];
      }
    const float* const scales = in_workspace<const float>(p, p.plan.scales_at) + kv_head * e.groups + first_group(p, block.sequence) + first_key / kGroup;
    const int length = static_cast<int>(block.keys), groups_here = (length - first_key + kGroup - 1) / kGroup;
    const int first_seen = static_cast<int>(block.index * p.block_q + block.keys - block.queries) + 1;  // keys that the block's first row sees
    const int per_block = block_k / kGroup, shift = 31 - __clz(per_block);

    const auto multiply = [&](int turn, int u, int (&s)[kTileKeys / 2]) {
      const uint64_t a = wgmma_descriptor(base + (group * kUnitsOfGroup + u) * kUnitBytes), b = wgmma_descriptor(base + kKeysAt + turn % kStages * kTileBytes);
#pragma unroll
      for (int step = 0; step < kRow / 32; ++step) wgmma<int8_t, kTileKeys>(s, wgmma_advance(a, step * 32), wgmma_advance(b, step * 32), step > 0);
      wgmma_commit();
    };
    const auto compare = [&](int turn, int u, int (&s)[kTileKeys / 2], const float (&scale)[kTileKeys / kGroup]) {
      const int unit = group * kUnitsOfGroup + u, first = first_key + turn * kTileKeys;
      const int seen = first_seen + first_row_of(unit) + warp * 16 + lane / 4;  // by row lane / 4
      if (first + kTileKeys > min(seen - lane / 4 - warp * 16, length)) {
#pragma unroll
        for (int i = 0; i < kTileKeys / 2; ++i) {
          const int key = first + i / 4 * 8 + lane % 4 * 2 + i % 2;
          if (key >= min(seen + i / 2 % 2 * 8, length)) s[i] = -0x7fffffff;
        }
      }
      unsigned above = 0;  // a bit for 16 keys
#pragma unroll
      for (int g = 0; g < kTileKeys / kGroup; ++g)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int highest = max(max(s[8 * g + 2 * half], s[8 * g + 2 * half + 1]), max(s[8 * g + 4 + 2 * half], s[8 * g + 5 + 2 * half]));
          if (highest != -0x7fffffff && static_cast<float>(highest) * (scale[g] * factor[u][half]) > threshold[u][half]) above |= 1u << g;
        }
      above = __reduce_or_sync(kFullMask, above);
      if (above == 0 || lane != 0) return;
      for (int g = 0; g < kTileKeys / kGroup; g += per_block) {
        const int j = (turn * (kTileKeys / kGroup) + g) >> shift;
        if ((above >> g & ((1u << per_block) - 1)) && j < end - begin) atomicOr(&bits[unit / e.chunks * words + j / 32], 1u << j % 32);
      }
    };

#pragma unroll 1
    for (int turn = 0; turn < tiles; ++turn) {
      float scale[kTileKeys / kGroup];
#pragma unroll
      for (int g = 0; g < kTileKeys / kGroup; ++g) {
        const int at = turn * (kTileKeys / kGroup) + g;
        scale[g] = at < groups_here ? scales[at] : 0.0f;
      }
      int s0[kTileKeys / 2], s1[kTileKeys / 2];
      mbarrier_wait(full(turn), parity(turn));
      wgmma_fence();
      multiply(turn, 0, s0);
      multiply(turn, 1, s1);
      wgmma_wait<1>();
      wgmma_hold(s0);
      compare(turn, 0, s0, scale);
      wgmma_wait<0>();
      wgmma_hold(s1);
      __syncwarp();
      if (lane == 0) mbarrier_arrive(empty(turn));
      compare(turn, 1, s1, scale);
    }
    named_barrier_sync(1 + group, 128);  // a warpgroup's units have bits of their own
    for (int i = consumer % 128; i < kUnitsOfGroup / e.chunks * words; i += 128) {
      const int row = i / words + group * kUnitsOfGroup / e.chunks;
      if (!works(row * e.chunks)) continue;
      in_workspace<uint32_t>(p, p.plan.bits_at)[(slot * p.query_heads + head_of(row * e.chunks)) * p.plan.bit_words() + i % words] = bits[row * words + i % words];
    }
  }
#endif
}

}  // namespace

void estimate_hopper(const Params& p, int64_t groups, int64_t first_slot, int64_t slots, NativeStream stream) {
  Estimate e{};
  e.p = p;
  e.groups = groups;
  e.first_slot = first_slot;
  e.chunks = p.block_q > kUnitRows ? 2 : 1;
  e.parts = static_cast<int32_t>((p.group() * e.chunks + kUnits - 1) / kUnits);
  e.keys = make_tensor_map({static_cast<char*>(p.workspace) + p.plan.keys_at, 1, 3, {kRow, p.key_rows, p.kv_heads}, {kRow, kRow * p.key_rows},
                            {kRow, kTileKeys, 1}, Swizzle::bytes_128});
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(slots * p.kv_heads * e.parts));
  shape.block = dim3(kConsumers + 128);
  shape.shared_bytes = kBitsAt + static_cast<size_t>(kUnits * p.plan.bit_words()) * 4;
  p.dtype == DType::f16 ? launch(estimate_hopper_kernel<half_t>, shape, stream, e) : launch(estimate_hopper_kernel<bfloat16_t>, shape, stream, e);
}

}  // namespace culebra::CUL_DEVICE_NS::sale

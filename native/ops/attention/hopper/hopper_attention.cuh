// Dense attention for compute capability 9.0: a producer warp fills a ring of keys and values through the copy engine, two warpgroups of 64
// query rows each multiply by wgmma; a warpgroup's softmax of one step runs beside its own product of the step before, and beside the
// other warpgroup's products.
//
// Cycles of an SM for 128 rows x 128 keys at D = Dv = 128, 2048 multiply-adds and 16 exponentials a cycle: each product 1024, both 2048;
// exponentials 1024, on a unit of their own; some 4.5 further operations a score (scale, maximum, sum, half a conversion, rescaling) 580
// issue slots of four schedulers. In turn 3650 cycles, 555 TFLOP/s at 1.83 GHz; perfectly side by side 2048.
#pragma once
#include "device/barrier.h"
#include "device/launch.h"
#include "device/mbarrier.h"
#include "device/tensor_map.h"
#include "device/vector.h"
#include "device/warp.h"
#include "device/wgmma.h"
#include "ops/attention/tile/dense_tour.cuh"

namespace culebra::CUL_DEVICE_NS {

// D and Dv up to kDim_, one of 64, 128, 256.
template <class T, int kDim_>
struct HopperAttentionTile {
  using Element = T;
  static constexpr int kDim = kDim_, kSlices = kDim / 64;  // of 64 channels, 128 bytes: what a swizzled row has
  static constexpr int kGroups = 2, kGroupRows = 64, kRows = kGroups * kGroupRows, kThreads = 128 * (kGroups + 1), kConsumers = 128 * kGroups;
  static constexpr int kKeys = kDim > 128 ? 64 : 128, kStages = kDim > 64 ? 2 : 4;
  static constexpr int kQuerySlice = kRows * 128, kKeySlice = kKeys * 128, kTileBytes = kSlices * kKeySlice;
  static constexpr int kKeysAt = kSlices * kQuerySlice, kValuesAt = kKeysAt + kStages * kTileBytes, kBarriersAt = kValuesAt + kStages * kTileBytes;
  static constexpr int kSharedBytes = kBarriersAt + (1 + 4 * kStages) * 8;
  static_assert(kSharedBytes <= 227 << 10);
};

struct HopperAttention {
  TensorMap q, k, v;  // [tokens][heads][channels] in boxes of 64 channels x one head x a tile's tokens
  IntervalRows rows;  // group 1: a row is a query, its head the block's
  const int32_t* cu_q;
  const int32_t* cu_k;
  int32_t sequences, query_heads, group;
  int32_t section;  // query heads that go through all tiles before the next ones
  int64_t slots;    // tiles of a head
  int32_t dim, value_dim;
  float scale, softcap;
};

#if CUL_HAS_SM90A

// The block's rows, and the keys that they see.
struct HopperPlace {
  int head, first_query, queries, keys;
  int64_t q0, k0;
};
CUL_DEVICE_FN HopperPlace hopper_place(const HopperAttention& p, int64_t index, int tile_rows) {
  const int64_t part = index / (p.slots * p.section), within = index - part * p.slots * p.section;
  const int64_t first_head = part * p.section, heads = min(int64_t{p.section}, p.query_heads - first_head);
  // The last tiles come first: under a causal mask they are the longest.
  const SequenceTile at = find_sequence(p.cu_q, p.sequences, 1, tile_rows, p.slots - 1 - within / heads);
  if (at.sequence < 0) return {-1, 0, 0, 0, 0, 0};
  const int64_t q0 = p.cu_q[at.sequence], k0 = p.cu_k[at.sequence];
  return {static_cast<int>(first_head + within % heads), at.tile * tile_rows, static_cast<int>(p.cu_q[at.sequence + 1] - q0),
          static_cast<int>(p.cu_k[at.sequence + 1] - k0), q0, k0};
}

#endif

// Computes: o = softmax(softcap(scale q k^T) + mask) v of one head's 128 queries of one sequence, and lse.
// Shapes:   q [Tq,Hq,D], k [Tk,Hkv,D], v [Tk,Hkv,Dv] packed; D, Dv <= kDim.
// Layouts:  inner stride 1, rows and heads at multiples of 16 bytes.
// Tiles:    128 queries, 64 a warpgroup, x 128 keys (kDim 256: 64), from the last keys to the first.
// Shared:   queries and a ring of keys and values in slices of 64 channels, swizzled; results in the queries' place.
// Order:    keys descending by tiles; a lane's columns of a tile ascending, four lanes a row at the end.
// Numerics: products of half operands exact, sums f32, weights rounded to T; exponentials by ex2.approx. scale > 0.
// Needs:    sm_90a (wgmma, tensor maps, mbarriers, register reallocation).
// Source:   Shah et al., FlashAttention-3, arXiv:2407.08608.
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1) hopper_attention(const __grid_constant__ HopperAttention p) {
#if CUL_HAS_SM90A
  using T = typename Tile::Element;
  constexpr int kKeys = Tile::kKeys, kStages = Tile::kStages, kSlices = Tile::kSlices;
  CUL_DYNAMIC_SHARED(unsigned char, shared, 1024);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const uint32_t base = shared_address(shared), barriers = base + Tile::kBarriersAt;
  const uint32_t query_full = barriers;
  const auto full = [&](int turn, int side) { return barriers + 8 + 8 * (turn % kStages * 2 + side); };  // side 0: keys, 1: values
  const auto empty = [&](int turn, int side) { return barriers + 8 + 8 * (2 * kStages + turn % kStages * 2 + side); };
  const auto parity = [](int turn) { return static_cast<uint32_t>(turn / kStages & 1); };
  const auto tile_at = [&](int turn, int side) { return (side ? Tile::kValuesAt : Tile::kKeysAt) + turn % kStages * Tile::kTileBytes; };

  const HopperPlace at = hopper_place(p, blockIdx.x, Tile::kRows);
  if (at.head < 0) return;
  const int count = min(Tile::kRows, at.queries - at.first_query);
  const IntervalRows::Row low = p.rows.interval(at.first_query, at.queries, at.keys),
                          high = p.rows.interval(at.first_query + count - 1, at.queries, at.keys);
  const IntervalRows::Row hull = {low.begin, high.end};
  const int first_tile = hull.begin / kKeys, tiles = hull.begin < hull.end ? (hull.end + kKeys - 1) / kKeys - first_tile : 0;
  const auto first_key = [&](int turn) { return (first_tile + tiles - 1 - turn) * kKeys; };

  if (thread == 0) {
    mbarrier_init(query_full, 1);
    for (int i = 0; i < kStages; ++i)
      for (int side = 0; side < 2; ++side) {
        mbarrier_init(full(i, side), 1);
        mbarrier_init(empty(i, side), Tile::kConsumers / 32);
      }
    mbarrier_init_fence();
  }
  __syncthreads();

  if (thread < 128) {
    registers_release<24>();
    if (thread != 0 || tiles == 0) return;
    const int kv_head = at.head / p.group;
    mbarrier_arrive_expect_bytes(query_full, static_cast<uint32_t>(kSlices * Tile::kQuerySlice));
    for (int slice = 0; slice < kSlices; ++slice)  // channels beyond D and Dv arrive as zeros
      tensor_copy_3d(base + slice * Tile::kQuerySlice, p.q, slice * 64, at.head, static_cast<int>(at.q0) + at.first_query, query_full);
    for (int turn = 0; turn < tiles; ++turn) {
      const int token = static_cast<int>(at.k0) + first_key(turn);
      for (int side = 0; side < 2; ++side) {
        mbarrier_wait(empty(turn, side), parity(turn) ^ 1u);
        mbarrier_arrive_expect_bytes(full(turn, side), static_cast<uint32_t>(Tile::kTileBytes));
        for (int slice = 0; slice < kSlices; ++slice)
          tensor_copy_3d(base + tile_at(turn, side) + slice * Tile::kKeySlice, side ? p.v : p.k, slice * 64, kv_head, token, full(turn, side));
      }
    }
  } else {
    registers_acquire<240>();
    const int consumer = thread - 128, group = consumer / 128, warp = consumer / 32 % 4, first_row = group * Tile::kGroupRows;
    const int row = first_row + warp * 16 + lane / 4;  // and row + 8
    const auto interval = [&](int r) {
      return r < count ? p.rows.interval(at.first_query + r, at.queries, at.keys) : IntervalRows::Row{0, 0};
    };
    const IntervalRows::Row seen[2] = {interval(row), interval(row + 8)};
    // What all of the warpgroup's rows see: elsewhere masks are asked.
    const IntervalRows::Row common = {interval(min(first_row + Tile::kGroupRows, count) - 1).begin, interval(min(first_row, count - 1)).end};
    const float cap = p.softcap > 0 ? p.softcap * kLog2e : 0, inner = cap > 0 ? p.scale / p.softcap : 1;
    const float factor_of_scores = cap > 0 ? 1.0f : p.scale * kLog2e;

    // Sums that products are under way on are arrays of their own, and nothing else is written to them before the wait: otherwise
    // ptxas serializes all products (C7515).
    using Sums = float[kKeys / 2];
    float o[Tile::kDim / 2] = {};
    uint32_t weights[kKeys / 16][4];
    float m[2] = {kNoScore, kNoScore}, d[2] = {};  // m before factor_of_scores; d of the lane's own columns

    const auto multiply_keys = [&](int turn, Sums& s) {
      const uint32_t queries = base + group * Tile::kGroupRows * 128, keys = base + tile_at(turn, 0);
#pragma unroll
      for (int slice = 0; slice < kSlices; ++slice) {
        const uint64_t a = wgmma_descriptor(queries + slice * Tile::kQuerySlice), b = wgmma_descriptor(keys + slice * Tile::kKeySlice);
#pragma unroll
        for (int step = 0; step < 4; ++step)
          wgmma<T, kKeys>(s, wgmma_advance(a, step * 32), wgmma_advance(b, step * 32), slice + step > 0);
      }
      wgmma_commit();
    };
    const auto multiply_values = [&](int turn) {
      const uint64_t b = wgmma_descriptor_transposed(base + tile_at(turn, 1), Tile::kKeySlice);
#pragma unroll
      for (int i = 0; i < kKeys / 16; ++i) wgmma_transposed<T, Tile::kDim>(o, weights[i], wgmma_advance(b, i * 2048));
      wgmma_commit();
    };
    const auto release = [&](int turn, int side) {
      __syncwarp();
      if (lane == 0) mbarrier_arrive(empty(turn, side));
    };
    // A tile that hangs over what any row sees may hold anything there, and 0 times infinity is no 0: its values become zeros.
    const auto clean_values = [&](int turn) {
      const int first = first_key(turn);
      if (first >= hull.begin && first + kKeys <= hull.end) return;
      for (int i = consumer; i < kKeys * kSlices * 8; i += Tile::kConsumers) {
        const int key = i / 8 % kKeys;
        if (first + key >= hull.begin && first + key < hull.end) continue;
        const Vector<uint32_t, 4> zeros{};
        store_vector(reinterpret_cast<uint32_t*>(shared + tile_at(turn, 1) + i / 8 * 128 + i % 8 * 16), zeros);
      }
      fence_async_proxy();
      named_barrier_sync(1, Tile::kConsumers);
    };
    // Scores become weights, still in f32; what o was is to be multiplied by factor.
    float factor[2];
    const auto weigh = [&](int turn, Sums& s) {
      const int first = first_key(turn);
      const bool edge = first < common.begin || first + kKeys > common.end;
      float highest[2] = {m[0], m[1]};
      if (cap > 0) {
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i) s[i] = cap * tanhf(s[i] * inner);
      }
      if (edge) {
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i) {
          const int n = first + i / 4 * 8 + lane % 4 * 2 + i % 2;
          if (n < seen[i / 2 % 2].begin || n >= seen[i / 2 % 2].end) s[i] = kNoScore;
        }
      }
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) highest[i / 2 % 2] = fmaxf(highest[i / 2 % 2], s[i]);
      float origin[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        highest[half] = warp_max<4>(highest[half]);
        origin[half] = highest[half] == kNoScore ? 0.0f : highest[half] * factor_of_scores;
        factor[half] = fast_exp2(fmaf(m[half], factor_of_scores, -origin[half]));
        m[half] = highest[half];
        d[half] *= factor[half];
      }
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) {
        s[i] = fast_exp2(fmaf(s[i], factor_of_scores, -origin[i / 2 % 2]));
        d[i / 2 % 2] += s[i];
      }
    };
    const auto pack = [&](const Sums& s) {
#pragma unroll
      for (int i = 0; i < kKeys / 16; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) weights[i][j] = pack2<T>(s[8 * i + 2 * j], s[8 * i + 2 * j + 1]);
    };

    if (tiles > 0) {
      mbarrier_wait(query_full, 0);
      mbarrier_wait(full(0, 0), 0);
      {
        Sums s;
        wgmma_fence();
        multiply_keys(0, s);
        wgmma_wait<0>();
        release(0, 0);
        weigh(0, s);
        pack(s);
      }
#pragma unroll 1
      for (int turn = 0; turn + 1 < tiles; ++turn) {
        mbarrier_wait(full(turn + 1, 0), parity(turn + 1));
        mbarrier_wait(full(turn, 1), parity(turn));
        clean_values(turn);
        Sums s;
        wgmma_fence();
        multiply_keys(turn + 1, s);
        multiply_values(turn);
        wgmma_wait<1>();
        release(turn + 1, 0);
        weigh(turn + 1, s);
        wgmma_wait<0>();
        wgmma_hold(o);
        wgmma_hold(weights);
        release(turn, 1);
#pragma unroll
        for (int i = 0; i < Tile::kDim / 2; ++i) o[i] *= factor[i / 2 % 2];
        pack(s);
      }
      mbarrier_wait(full(tiles - 1, 1), parity(tiles - 1));
      clean_values(tiles - 1);
      wgmma_fence();
      multiply_values(tiles - 1);
      wgmma_wait<0>();
      wgmma_hold(o);
      wgmma_hold(weights);
    }

    // The warpgroup's results go through its queries' place, laid out as they were: 16-byte piece c of a row.
    const auto out = [&](int r, int c) {
      return reinterpret_cast<T*>(shared + c / 8 * Tile::kQuerySlice + r * 128 + ((c ^ r) % 8) * 16);
    };
    named_barrier_sync(2 + group, 128);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + 8 * half;
      Softmax softmax;
      softmax.m = m[half] == kNoScore ? kNoScore : m[half] * factor_of_scores;
      softmax.d = warp_sum<4>(d[half]);
      const float* const sinks = p.rows.sinks;
      const float inverse = softmax.inverse(sinks ? sinks[at.head] : kNoScore);
#pragma unroll
      for (int i = 0; i < Tile::kDim / 8; ++i)
        *reinterpret_cast<uint32_t*>(out(r, i) + lane % 4 * 2) =
            pack2<T>(o[4 * i + 2 * half] * inverse, o[4 * i + 2 * half + 1] * inverse);
      if (r < count && lane % 4 == 0)
        if (char* const lse = p.rows.lse.at(0, at.q0 + at.first_query + r, at.head)) *reinterpret_cast<float*>(lse) = softmax.lse();
    }
    __syncwarp();
    for (int i = lane; i < 16 * (Tile::kDim / 8); i += 32) {
      const int r = first_row + warp * 16 + i / (Tile::kDim / 8), c = i % (Tile::kDim / 8);
      if (r >= count || c * 8 >= p.value_dim) continue;
      T* const to = reinterpret_cast<T*>(p.rows.o.at(0, at.q0 + at.first_query + r, at.head)) + c * 8;
      store_vector(to, load_vector<8>(out(r, c)));
    }
  }
#endif
}

}  // namespace culebra::CUL_DEVICE_NS

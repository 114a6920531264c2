// Attention for compute capability 9.0: a producer warp fills a ring of keys and values through the copy engine, one or two warpgroups of 64
// query rows each multiply by wgmma; a warpgroup's softmax of one step runs beside its own product of the step before, and beside the
// other warpgroup's products.
//
// Cycles of an SM for 128 rows x 128 keys at D = Dv = 128, 2048 multiply-adds and 16 exponentials a cycle: each product 1024, both 2048;
// exponentials 1024, on a unit of their own; some 4.5 further operations a score (scale, maximum, sum, half a conversion, rescaling) 580
// issue slots of four schedulers. In turn 3650 cycles, 555 TFLOP/s at 1.83 GHz; perfectly side by side 2048.
// Which rows and keys those are is a tour's (hopper_tours.cuh): dense, or lists of blocks.
#pragma once
#include "device/barrier.h"
#include "device/launch.h"
#include "device/mbarrier.h"
#include "device/tensor_map.h"
#include "device/vector.h"
#include "device/warp.h"
#include "device/wgmma.h"
#include "ops/attention/hopper/hopper_tours.cuh"

namespace culebra::CUL_DEVICE_NS {

// D and Dv up to kDim_, one of 64, 128, 256. With one warpgroup two blocks share an SM: one's softmax runs beside the other's products.
template <class T, int kDim_, int kGroups_ = 2>
struct HopperAttentionTile {
  using Element = T;
  static constexpr int kDim = kDim_, kSlices = kDim / 64;  // of 64 channels, 128 bytes: what a swizzled row has
  static constexpr int kGroups = kGroups_, kGroupRows = kHopperRows, kRows = kGroups * kGroupRows, kThreads = 128 * (kGroups + 1),
                       kConsumers = 128 * kGroups, kBlocksPerSm = kGroups == 1 ? 2 : 1, kRegisters = kGroups == 1 ? 232 : 240;
  static constexpr int kKeys = kDim > 128 || (kDim > 64 && kGroups == 1) ? 64 : 128, kStages = kGroups == 1 ? 3 : kDim > 64 ? 2 : 4;
  static constexpr int kQuerySlice = kRows * 128, kKeySlice = kKeys * 128, kTileBytes = kSlices * kKeySlice;
  static constexpr int kKeysAt = kSlices * kQuerySlice, kValuesAt = kKeysAt + kStages * kTileBytes, kBarriersAt = kValuesAt + kStages * kTileBytes;
  static constexpr int kSeenAt = kBarriersAt + (1 + 4 * kStages) * 8, kRowsAt = kSeenAt + kRows * 8,
                       kSharedBytes = kRowsAt + kGroups * static_cast<int>(sizeof(HopperRows));
  static_assert(kBlocksPerSm * (kSharedBytes + 1024) <= 228 << 10);
};

template <class Tours>
struct HopperAttention {
  TensorMap q, k, v;  // [tokens][heads][channels] in boxes of 64 channels x one head x 64 queries, or a box's keys
  Tours tours;
  ByteRows o, lse;     // lse.data may be null
  const float* sinks;  // per head, or null
  int32_t value_dim;
  // A score times log2 e is `factor` times the product, or of cap tanh(inner times it).
  float factor, cap, inner;

  void set_scores(float scale, float softcap) {
    cap = softcap > 0 ? softcap * kLog2e : 0;
    inner = softcap > 0 ? scale / softcap : 1;
    factor = softcap > 0 ? 1 : scale * kLog2e;
  }
};

// Computes: o = softmax(softcap(scale q k^T) + mask) v of a tour's rows over its keys, and lse.
// Shapes:   q [Tq,Hq,D], k [Tk,Hkv,D], v [Tk,Hkv,Dv] packed; D, Dv <= kDim.
// Layouts:  inner stride 1, rows and heads at multiples of 16 bytes.
// Tiles:    64 queries a warpgroup, one or two of them, x 128 keys (kDim 256, or one warpgroup with kDim 128: 64), from the last keys to the first.
// Shared:   queries and a ring of keys and values in slices of 64 channels, swizzled; results in the queries' place.
// Order:    keys descending by tiles; a lane's columns of a tile ascending, four lanes a row at the end.
// Numerics: products of half operands exact, sums f32, weights rounded to T; exponentials by ex2.approx. scale > 0.
// Needs:    sm_90a (wgmma, tensor maps, mbarriers, register reallocation).
// Source:   Shah et al., FlashAttention-3, arXiv:2407.08608.
template <class Tile, class Tours>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm) hopper_attention(const __grid_constant__ HopperAttention<Tours> p) {
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

  const auto tour = p.tours.template tour<Tile::kGroups>(blockIdx.x);
  using Tour = decltype(tour);
  if (tour.nothing()) return;
  const IntervalRows::Row hull = tour.hull();
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
  // Whoever stores results asks again for whose they are: registers are short until then.
  HopperRows* const rows = reinterpret_cast<HopperRows*>(shared + Tile::kRowsAt);
  if (thread % 128 == 0 && thread >= 128) rows[thread / 128 - 1] = tour.rows(thread / 128 - 1);
  __syncthreads();

  if (thread < 128) {
    registers_release<24>();
    // A lane for each box of a step.
    const int box = Tour::kOneBox ? kKeys : tour.box(), boxes = Tour::kOneBox ? 1 : kKeys / box, lane_box = Tour::kOneBox ? 0 : thread;
    if (thread >= boxes || tiles == 0) return;
    if (thread == 0) {
      mbarrier_arrive_expect_bytes(query_full, static_cast<uint32_t>(kSlices * Tile::kQuerySlice));
#pragma unroll
      for (int g = 0; g < Tile::kGroups; ++g) {
        const HopperRows at = rows[g];
        for (int slice = 0; slice < kSlices; ++slice)  // channels beyond D and Dv arrive as zeros
          tensor_copy_3d(base + slice * Tile::kQuerySlice + g * Tile::kGroupRows * 128, p.q, slice * 64, at.head, at.token, query_full);
      }
    }
    const int kv_head = tour.kv_head(), offset = lane_box * box * 128;
    const auto find_row = [&](int turn) { return tour.key_row(first_key(turn) + lane_box * box); };
    int next = Tour::kOneBox ? 0 : find_row(0);
#pragma unroll 1
    for (int turn = 0; turn < tiles; ++turn) {
      const int row = Tour::kOneBox ? find_row(turn) : next;
      if (!Tour::kOneBox && turn + 1 < tiles) next = find_row(turn + 1);
      for (int side = 0; side < 2; ++side) {
        mbarrier_wait(empty(turn, side), parity(turn) ^ 1u);
        if (lane_box == 0) mbarrier_arrive_expect_bytes(full(turn, side), static_cast<uint32_t>(Tile::kTileBytes));
        if (!Tour::kOneBox) __syncwarp(boxes == 32 ? kFullMask : (1u << boxes) - 1);
        for (int slice = 0; slice < kSlices; ++slice)
          tensor_copy_3d(base + tile_at(turn, side) + slice * Tile::kKeySlice + offset, side ? p.v : p.k, slice * 64, kv_head, row, full(turn, side));
      }
    }
  } else {
    registers_acquire<Tile::kRegisters>();
    const int consumer = thread - 128, group = consumer / 128, warp = consumer / 32 % 4, first_row = group * Tile::kGroupRows;
    const int row = first_row + warp * 16 + lane / 4;  // and row + 8
    const IntervalRows::Row common = tour.common(first_row);  // elsewhere masks are asked: what each row sees lies in shared memory
    IntervalRows::Row* const seen = reinterpret_cast<IntervalRows::Row*>(shared + Tile::kSeenAt) + row;
    if (lane % 4 == 0) {
      seen[0] = tour.interval(row);
      seen[8] = tour.interval(row + 8);
    }
    __syncwarp();

    // Sums that products are under way on are arrays of their own, and nothing else is written to them before the wait: otherwise
    // ptxas serializes all products (C7515).
    using Sums = float[kKeys / 2];
    float o[Tile::kDim / 2] = {};
    uint32_t weights[kKeys / 16][4];
    float m[2] = {kNoScore, kNoScore}, d[2] = {};  // m before p.factor; d of the lane's own columns

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
      if (p.cap > 0) {
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i) s[i] = p.cap * tanhf(s[i] * p.inner);
      }
      if (edge) {
        const IntervalRows::Row bounds[2] = {seen[0], seen[8]};
#pragma unroll
        for (int i = 0; i < kKeys / 2; ++i) {
          const int n = first + i / 4 * 8 + lane % 4 * 2 + i % 2;
          if (n < bounds[i / 2 % 2].begin || n >= bounds[i / 2 % 2].end) s[i] = kNoScore;
        }
      }
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) highest[i / 2 % 2] = fmaxf(highest[i / 2 % 2], s[i]);
      float origin[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        highest[half] = warp_max<4>(highest[half]);
        origin[half] = highest[half] == kNoScore ? 0.0f : highest[half] * p.factor;
        factor[half] = fast_exp2(fmaf(m[half], p.factor, -origin[half]));
        m[half] = highest[half];
        d[half] *= factor[half];
      }
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) {
        s[i] = fast_exp2(fmaf(s[i], p.factor, -origin[i / 2 % 2]));
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
    const HopperRows at = rows[group];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + 8 * half;
      Softmax softmax;
      softmax.m = m[half] == kNoScore ? kNoScore : m[half] * p.factor;
      softmax.d = warp_sum<4>(d[half]);
      const float inverse = softmax.inverse(p.sinks ? p.sinks[at.head] : kNoScore);
#pragma unroll
      for (int i = 0; i < Tile::kDim / 8; ++i)
        *reinterpret_cast<uint32_t*>(out(r, i) + lane % 4 * 2) =
            pack2<T>(o[4 * i + 2 * half] * inverse, o[4 * i + 2 * half + 1] * inverse);
      if (r - first_row < at.count && lane % 4 == 0)
        if (char* const lse = p.lse.at(0, at.token + r - first_row, at.head)) *reinterpret_cast<float*>(lse) = softmax.lse();
    }
    __syncwarp();
    for (int i = lane; i < 16 * (Tile::kDim / 8); i += 32) {
      const int r = first_row + warp * 16 + i / (Tile::kDim / 8), c = i % (Tile::kDim / 8);
      if (r - first_row >= at.count || c * 8 >= p.value_dim) continue;
      T* const to = reinterpret_cast<T*>(p.o.at(0, at.token + r - first_row, at.head)) + c * 8;
      store_vector(to, load_vector<8>(out(r, c)));
    }
  }
#endif
}

template <class Tile, class Tours>
void launch_hopper_attention(const HopperAttention<Tours>& problem, int64_t tiles, NativeStream stream) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(tiles));
  shape.block = dim3(Tile::kThreads);
  shape.shared_bytes = Tile::kSharedBytes;
  launch(hopper_attention<Tile, Tours>, shape, stream, problem);
}

}  // namespace culebra::CUL_DEVICE_NS

// The product for compute capability 9.0 that w4a16_gemm and gemm share: c = epilogue(a w^T + bias) over one tile of c per block, the
// weights behind a policy (hopper_int4.cuh, hopper_half.cuh).
//
// The weights are operand A of wgmma, 64 columns of c in each instruction, and the tokens operand B: its n is as small as 8. The copy
// engine fills a ring of stages; a warp asks for what it will multiply, one stage after it has left the old contents, when the others
// have most likely left them too. There is no producer warp: registers belong to the four quarters of an SM, and a fifth warp in a
// block of four leaves each of two blocks' warps 168 of them instead of 255. Where there are too few tiles to fill the device, the
// blocks of a cluster share the k of a tile and add their sums through each other's shared memory.
#pragma once
#include "device/barrier.h"
#include "device/cluster.h"
#include "device/launch.h"
#include "device/mbarrier.h"
#include "device/tensor_map.h"
#include "device/vector.h"
#include "device/warp.h"
#include "device/wgmma.h"
#include "ops/gemm/tile/epilogue.cuh"
#include "ops/gemm/hopper/hopper_gemm.h"
#include "ops/gemm/tile/tile_gemm.h"

namespace culebra::CUL_DEVICE_NS {

struct HopperProblem {
  TensorMap tokens;  // a [m, k] in boxes of a tile's tokens x 64 k
  int64_t m;
  int32_t token_tiles, column_tiles;
  int32_t slices, slices_per_split;  // of 64 k
  float* partials;                   // [m, partial_width] sums, or null: the block finishes c itself
  int64_t partial_width;
  Output output;
};

// Rows of 64 k of a matrix [rows, k] as wgmma wants them: 128 bytes, swizzled. What lies beyond the matrix is 0.
inline TensorMap row_map(const void* matrix, int64_t row_stride, int64_t rows, int64_t k, int tile_rows) {
  const int64_t stride = rows > 1 ? row_stride : (k + 7) / 8 * 8;  // one row has no stride
  return make_tensor_map({matrix, 2, 2, {k, rows}, {2 * stride}, {kSliceRows, tile_rows}, Swizzle::bytes_128});
}

template <class Tile, class Weights>
struct HopperShared {
  static constexpr int kTokenBytes = Tile::kTokens * kSliceRows * 2;
  static constexpr int kStageBytes = (kTokenBytes + Weights::kSliceBytes + 1023) / 1024 * 1024;  // swizzled tiles start at 1024
  static constexpr int kBarriersAt = Tile::kStages * kStageBytes;
  static constexpr int kBytes = kBarriersAt + 2 * Tile::kStages * 8;
  static constexpr int kSumRow = Weights::kColumns + 4;  // of the f32 tile that takes the stages' place in the end
  static_assert(Tile::kTokens * kSumRow * 4 <= kBarriersAt);
  static_assert((kBytes + 1024) * Tile::kBlocksPerSm <= 228 << 10, "an SM has 228 KB, and keeps 1 KB of each block's");
};

#if CUL_HAS_SM90A

// Which tile a cluster computes: 16 token tiles share a column tile before the next one, so that weights and a both stay in L2.
struct HopperBlock {
  int token_tile, column_tile;
};
CUL_DEVICE_FN HopperBlock hopper_block(const HopperProblem& p, int index) {
  constexpr int kBand = 16;
  const int band = index / (kBand * p.column_tiles), within = index % (kBand * p.column_tiles);
  const int rows = min(p.token_tiles - band * kBand, kBand);
  return {band * kBand + within % rows, within / rows};
}

// Eight neighbouring sums, added over the blocks of the cluster in the order of their ranks.
CUL_DEVICE_FN void cluster_sums(const float* mine, int splits, float (&total)[8]) {
  float4* const out = reinterpret_cast<float4*>(total);
  if (splits == 1) {
    out[0] = *reinterpret_cast<const float4*>(mine);
    out[1] = *reinterpret_cast<const float4*>(mine + 4);
    return;
  }
  const uint32_t address = shared_address(mine);
  for (int rank = 0; rank < splits; ++rank) {
    const uint32_t there = cluster_address(address, static_cast<uint32_t>(rank));
    const float4 low = load_cluster<float4>(there), high = load_cluster<float4>(there + 16);
    const float4 a = rank > 0 ? out[0] : float4{}, b = rank > 0 ? out[1] : float4{};
    out[0] = make_float4(a.x + low.x, a.y + low.y, a.z + low.z, a.w + low.w);
    out[1] = make_float4(b.x + high.x, b.y + high.y, b.z + high.z, b.w + high.w);
  }
}

#endif

#if CUL_HAS_SM90A

// A block's ring of stages, and with it the f32 sums of one tile after the other.
template <class Tile, class Weights>
class HopperRing {
  using Shared = HopperShared<Tile, Weights>;

 public:
  CUL_DEVICE_FN explicit HopperRing(unsigned char* shared)
      : shared_(shared), stages_(shared_address(shared)), full_(stages_ + Shared::kBarriersAt), empty_(full_ + 8 * Tile::kStages) {
    if (threadIdx.x == 0) {
      for (int stage = 0; stage < Tile::kStages; ++stage) {
        mbarrier_init(full_ + 8 * stage, Weights::kFetchWarps);
        mbarrier_init(empty_ + 8 * stage, Tile::kWarps);
      }
      mbarrier_init_fence();
    }
    __syncthreads();
  }

  // The products of slices [first_slice, first_slice + slices), each thread its part of [kTokens][kSumRow] at the beginning of shared
  // memory: a barrier must follow. Before the next tile, fence_async_proxy and a barrier: its copies land there.
  // tokens: in boxes of kBox rows.
  template <int kBox = Tile::kTokens>
  CUL_DEVICE_FN float* sums(const TensorMap& tokens, const Weights& weights, int first_token, int column_tile, int first_slice, int slices) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const auto slot = [](int turn) { return turn % Tile::kStages; };
    const auto parity = [](int turn) { return static_cast<uint32_t>(turn / Tile::kStages & 1); };
    // Warp 0 also brings the tokens.
    const auto fetch = [&](int slice) {
      const int stage = slot(turn_ + slice);
      const uint32_t data = stages_ + stage * Shared::kStageBytes, landed = full_ + 8 * stage;
      mbarrier_arrive_expect_bytes(landed, weights.fetched_bytes() + (warp == 0 ? Shared::kTokenBytes : 0));
      weights.fetch(data + Shared::kTokenBytes, column_tile, first_slice + slice, warp, landed);
      if (warp == 0)
        for (int row = 0; row < Tile::kTokens; row += kBox)
          tensor_copy_2d(data + row * kSliceRows * 2, tokens, (first_slice + slice) * kSliceRows, first_token + row, landed);
    };
    const bool fetches = warp < Weights::kFetchWarps && lane == 0;
    if (fetches)
      for (int slice = 0; slice < min(slices, Tile::kStages); ++slice) fetch(slice);

    const int group = warp / 4, group_token = group % Tile::kTokenGroups * Tile::kGroupTokens;
    typename Weights::template Accumulator<Tile::kGroupTokens> accumulator(group / Tile::kTokenGroups * 4 + warp % 4, lane);
    if constexpr (requires { accumulator.start(weights, int64_t{0}, 0, 0); })  // the policy's scales depend on the place
      accumulator.start(weights, int64_t{first_token} + group_token, column_tile, first_slice);
    for (int slice = 0; slice < slices; ++slice) {
      const int turn = turn_ + slice;
      const unsigned char* const data = shared_ + slot(turn) * Shared::kStageBytes;
      mbarrier_wait(full_ + 8 * slot(turn), parity(turn));
      accumulator.multiply(weights, data + Shared::kTokenBytes, wgmma_descriptor(shared_address(data) + group_token * kSliceRows * 2));
      // The policy may still be multiplying its last kInFlight slices: what lies before them is free.
      __syncwarp();
      const int left = slice - Weights::kInFlight, refilled = left - 1;
      if (lane == 0 && left >= 0) mbarrier_arrive(empty_ + 8 * slot(turn_ + left));
      if (fetches && refilled >= 0 && refilled + Tile::kStages < slices) {
        mbarrier_wait(empty_ + 8 * slot(turn_ + refilled), parity(turn_ + refilled));
        fetch(refilled + Tile::kStages);
      }
      __syncwarp();
    }
    accumulator.finish();
    if (lane == 0)
      for (int left = max(slices - Weights::kInFlight, 0); left < slices; ++left) mbarrier_arrive(empty_ + 8 * slot(turn_ + left));
    turn_ += slices;
    __syncthreads();  // everything has landed and been read

    float* const sums = reinterpret_cast<float*>(shared_);
    accumulator.store(sums + group_token * Shared::kSumRow, Shared::kSumRow);
    return sums;
  }

 private:
  unsigned char* shared_;
  uint32_t stages_, full_, empty_;
  int turn_ = 0;  // slices that the ring has seen
};

#endif

// Computes: one tile of c = epilogue(a w^T + bias), or of its f32 sums.
// Shapes:   a [m, k], w as the policy stores it, c [m, n]; any m, n, k > 0.
// Layouts:  a row-major, rows at multiples of 16 bytes; w: the policy's; c row-major.
// Tiles:    HopperTile (hopper_gemm.h) tokens x Weights::kColumns; the blocks of a cluster have a part of k each.
// Shared:   kStages x (tokens x 128 + the policy's slice) bytes, two mbarriers a stage; then the f32 tile, rows padded by 16 bytes.
// Order:    the policy's within a slice, slices ascending, then the blocks of the cluster by rank.
// Numerics: products of half operands exact, sums f32; one rounding to c. Bits depend on the tile and the split, not on the run.
// Needs:    sm_90a (wgmma, bulk copies, tensor maps, clusters).
// Source:   a ring of mbarriers as in CUTLASS's and DeepGEMM's kernels for this architecture; operand order, layout, roles and the
//           sum over the cluster ours.
template <class Tile, class Weights>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
    hopper_gemm(const __grid_constant__ HopperProblem p, const __grid_constant__ Weights weights) {
#if CUL_HAS_SM90A
  using Shared = HopperShared<Tile, Weights>;
  CUL_DYNAMIC_SHARED(unsigned char, shared, 1024);
  const int thread = static_cast<int>(threadIdx.x);
  const int splits = static_cast<int>(cluster_size()), rank = static_cast<int>(cluster_rank());
  const HopperBlock at = hopper_block(p, static_cast<int>(blockIdx.x) / splits);
  const int first_token = at.token_tile * Tile::kTokens;
  const int first_slice = rank * p.slices_per_split, slices = min(p.slices_per_split, p.slices - first_slice);
  HopperRing<Tile, Weights> ring(shared);
  const float* const sums = ring.sums(p.tokens, weights, first_token, at.column_tile, first_slice, slices);
  splits > 1 ? cluster_sync() : __syncthreads();

  // The blocks of a cluster finish every splits-th run of 8 columns a thread.
  const int columns = weights.finished_columns(), chunks = columns / 8;
  const int rows = static_cast<int>(min(p.m - first_token, static_cast<int64_t>(Tile::kTokens)));
  for (int i = rank * Tile::kThreads + thread; i < rows * chunks; i += splits * Tile::kThreads) {
    const int row = i / chunks, column = i % chunks * 8;
    const float* const mine = sums + row * Shared::kSumRow + column;
    const int64_t token = first_token + row, to = static_cast<int64_t>(at.column_tile) * columns + column;
    float x[8], up[8] = {};
    cluster_sums(mine, splits, x);
    if (p.partials) {
      if (to >= p.partial_width) continue;
      float4* const out = reinterpret_cast<float4*>(p.partials + token * p.partial_width + to);
      out[0] = make_float4(x[0], x[1], x[2], x[3]);
      out[1] = make_float4(x[4], x[5], x[6], x[7]);
    } else {
      if (columns < Weights::kColumns) cluster_sums(mine + columns, splits, up);
      finish_columns<typename Weights::Element>(p.output, token, to, x, up);
    }
  }
  if (splits > 1) cluster_sync();  // nobody leaves while others read its sums
#endif
}

template <class Tile, class Weights>
void launch_hopper(const HopperProblem& p, const Weights& weights, int32_t splits, NativeStream stream) {
  const int64_t blocks = int64_t{p.token_tiles} * p.column_tiles * splits;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(blocks));
  shape.block = dim3(Tile::kThreads);
  shape.shared_bytes = HopperShared<Tile, Weights>::kBytes;
  shape.cluster = dim3(static_cast<unsigned>(splits));
  launch(hopper_gemm<Tile, Weights>, shape, stream, p, weights);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/moe/grouped_gemm.cuh"

#include "device/validate.h"
#include "device/warp.h"
#include "ops/moe/gather_rows.cuh"
#include "ops/moe/grouped_hopper.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kListThreads = 512;

// Computes: the list of tiles: experts ascending, their rows in pieces of tile_rows.
// Shapes:   offsets [experts + 1] -> first_tile [experts + 1] (its last element: how many tiles there are), tiles.
// Layouts:  compact.
// Tiles:    one block. First a prefix sum over the experts, a thread each; then a thread a tile finds its expert by bisection, so that
//           one expert with all the rows takes no longer than many.
// Shared:   a sum for each warp.
// Order:    that of the experts.
// Numerics: integers; offsets outside [0, rows] or descending count as the nearest legal ones.
// Needs:    sm_80. Limit: 8 E + 16 bytes a tile, and the latency of about E / 512 + tiles / 512 turns.
// Source:   MegaBlocks' sorted tiles, here without padded rows.
__global__ void __launch_bounds__(kListThreads)
    list_tiles(const int64_t* offsets, int64_t experts, int64_t rows, int32_t tile_rows, int64_t most, int32_t* first_tile, GroupedTile* tiles) {
  CUL_SHARED(int32_t, warp_sums, [kListThreads / 32]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto begin = [&](int64_t e) { return min(max(offsets[e], int64_t{0}), rows); };
  const auto count = [&](int64_t e) { return max(begin(e + 1) - begin(e), int64_t{0}); };
  int32_t before = 0;  // tiles of the experts of earlier turns
  for (int64_t first = 0; first < experts; first += kListThreads) {
    const int64_t e = first + thread;
    const int32_t own = e < experts ? static_cast<int32_t>((count(e) + tile_rows - 1) / tile_rows) : 0;
    const int32_t within = warp_inclusive_sum(own);
    if (lane == 31) warp_sums[warp] = within;
    __syncthreads();
    int32_t sum = before;
    for (int i = 0; i < kListThreads / 32; ++i) {
      if (i == warp && e < experts) first_tile[e] = sum + within - own;
      sum += warp_sums[i];
    }
    before = sum;
    __syncthreads();
  }
  if (thread == 0) first_tile[experts] = min(static_cast<int64_t>(before), most);
  __syncthreads();
  for (int64_t i = thread; i < min(static_cast<int64_t>(before), most); i += kListThreads) {
    int64_t low = 0, high = experts;  // the last expert whose first tile is not beyond i
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      if (first_tile[middle] <= i) low = middle;
      else high = middle;
    }
    const int64_t row = (i - first_tile[low]) * tile_rows;
    tiles[i] = {begin(low) + row, static_cast<int32_t>(low), static_cast<int32_t>(min(count(low) - row, int64_t{tile_rows}))};
  }
}

// The same product of rows that follow each other.
GroupedGemmParams gathered(const GroupedGemmParams& p, NativeStream stream) {
  GroupedGemmParams g = p;
  if (!p.gather) return g;
  unsigned char* const workspace = static_cast<unsigned char*>(p.workspace);
  const int64_t* const used = p.offsets + p.experts();
  void* const rows = workspace + p.plan.rows_offset;
  if (p.a_scale) {
    float* const scales = reinterpret_cast<float*>(workspace + p.plan.row_scales_offset);
    g.a_scale = scales;
    g.a_scale_stride = (p.k() + 127) / 128;
    gather_rows<uint8_t>(p.a, p.lda, p.a_rows, p.gather, used, p.rows, p.k(), rows, stream);
    gather_rows<float, 1>(p.a_scale, p.a_scale_stride, p.a_rows, p.gather, used, p.rows, g.a_scale_stride, scales, stream);
    g.lda = (p.k() + 15) / 16 * 16;
  } else {
    gather_rows<uint16_t>(p.a, p.lda, p.a_rows, p.gather, used, p.rows, p.k(), rows, stream);
    g.lda = (p.k() + 7) / 8 * 8;
  }
  g.a = rows;
  g.a_rows = p.rows;
  g.gather = nullptr;
  return g;
}

void hopper(const GroupedGemmParams& p, NativeStream stream) {
  const GroupedGemmParams g = gathered(p, stream);
  g.b.storage == CUL_EXPERTS_F8 ? grouped_hopper_f8(g, stream) : grouped_hopper_half(g, stream);
}

}  // namespace

void moe_grouped_gemm(const GroupedGemmParams& p, NativeStream stream) {
  if (p.validate) validate("moe_grouped_gemm", p, stream);
  if (p.rows == 0 || p.experts() == 0 || p.columns() == 0) return;
  unsigned char* const workspace = static_cast<unsigned char*>(p.workspace);
  launch(list_tiles, dim3(1), dim3(kListThreads), 0, stream, p.offsets, p.experts(), p.rows, p.plan.tile_tokens, p.plan.row_tiles,
         reinterpret_cast<int32_t*>(workspace), reinterpret_cast<GroupedTile*>(workspace + p.plan.tiles_offset));
  if (p.plan.design == GemmDesign::hopper) return hopper(p, stream);
  switch (p.b.storage) {
    case CUL_EXPERTS_HALF: return grouped_half(p, stream);
    case CUL_EXPERTS_INT4: return grouped_int4(p, stream);
    default: return grouped_f8(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

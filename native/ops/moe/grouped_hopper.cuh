// Rows times their experts' matrices on compute capability 9.0: the ring of the Hopper products, one block a tile of one expert's rows.
#pragma once
#include "ops/gemm/hopper/hopper_gemm.cuh"
#include "ops/moe/grouped_epilogue.cuh"
#include "ops/moe/grouped_tiles.h"

namespace culebra::CUL_DEVICE_NS {

struct GroupedHopperShape {
  int32_t row_tiles, column_tiles;  // row tiles: at most
  int32_t slices;                   // of k
  int32_t one_tile;                 // every tile by the same instructions
  int32_t half;                     // > 0: up begins at this row of a matrix; a tile has 64 columns of the gate and 64 of up
};

// [E, n, k] of 16-bit words in boxes of 64 rows x 64.
inline TensorMap expert_map(const void* data, int64_t expert_stride, int64_t row_stride, int64_t experts, int64_t n, int64_t k) {
  const int64_t row = n > 1 ? row_stride : (k + 7) / 8 * 8, expert = experts > 1 ? expert_stride : row * n;  // one has no stride
  return make_tensor_map({data, 2, 3, {k, n, experts}, {2 * row, 2 * expert}, {kSliceRows, 64, 1}, Swizzle::bytes_128});
}

#if CUL_HAS_SM90A

// The 128 columns of a tile, 64 in either half of the slice.
struct ExpertBoxes {
  const TensorMap* map;
  int expert, half;

  CUL_DEVICE_FN void fetch(uint32_t slice, int column_tile, int index, uint32_t landed) const {
    const int first = half > 0 ? column_tile * 64 : column_tile * 128, second = half > 0 ? half + first : first + 64;
    tensor_copy_3d(slice, *map, index * kSliceRows, first, expert, landed);
    tensor_copy_3d(slice + 64 * kSliceRows * 2, *map, index * kSliceRows, second, expert, landed);
  }
};

// 16 row tiles share a column tile before the next one, so that weights and rows both stay in L2.
CUL_DEVICE_FN HopperBlock grouped_block(const GroupedHopperShape& s, int index) {
  HopperProblem p{};
  p.token_tiles = s.row_tiles;
  p.column_tiles = s.column_tiles;
  return hopper_block(p, index);
}

// Rows in boxes that every tile of a family is made of.
template <class Tile>
inline constexpr int grouped_box = Tile::kTokens < 64 ? Tile::kTokens : 64;

// One tile of c.
template <class Tile, class Weights>
CUL_DEVICE_FN void grouped_tile(unsigned char* shared, const TensorMap& rows, const Weights& weights, const GroupedTile& tile, int column_tile,
                                const GroupedHopperShape& shape, const GroupedEpilogue& epilogue) {
  HopperRing<Tile, Weights> ring(shared);
  const float* const sums =
      ring.template sums<grouped_box<Tile>>(rows, weights, static_cast<int>(tile.first_row), column_tile, 0, shape.slices);
  __syncthreads();
  const int columns = shape.half > 0 ? 64 : 128, chunks = columns / 8;
  for (int i = static_cast<int>(threadIdx.x); i < tile.rows * chunks; i += Tile::kThreads) {
    const int row = i / chunks, column = i % chunks * 8;
    const float* const values = sums + row * HopperShared<Tile, Weights>::kSumRow + column;
    epilogue.finish(tile.expert, tile.first_row + row, int64_t{column_tile} * columns + column, values, values + 64);
  }
}

// The same by instructions of half the rows, or a quarter, where an expert's last tile has no more: half the time.
template <class Tile, int kLeastRows, class Weights>
CUL_DEVICE_FN void grouped_fitting_tile(unsigned char* shared, const TensorMap& rows, const Weights& weights, const GroupedTile& tile, int column_tile,
                                        const GroupedHopperShape& shape, const GroupedEpilogue& epilogue) {
  using Half = HopperTile<Tile::kGroupTokens / 2, Tile::kTokenGroups, Tile::kColumnGroups, Tile::kStages, Tile::kBlocksPerSm>;
  if constexpr (Half::kTokens >= kLeastRows)
    if (tile.rows <= Half::kTokens && !shape.one_tile)
      return grouped_fitting_tile<Half, kLeastRows>(shared, rows, weights, tile, column_tile, shape, epilogue);
  grouped_tile<Tile>(shared, rows, weights, tile, column_tile, shape, epilogue);
}

#endif

// The list of tiles and their number, in the workspace.
struct GroupedList {
  const GroupedTile* tiles;
  const int32_t* count;
};
inline GroupedList grouped_list(const GroupedGemmParams& p) {
  unsigned char* const workspace = static_cast<unsigned char*>(p.workspace);
  return {reinterpret_cast<const GroupedTile*>(workspace + p.plan.tiles_offset), reinterpret_cast<const int32_t*>(workspace) + p.experts()};
}
inline GroupedHopperShape grouped_shape(const GroupedGemmParams& p, int64_t slice) {
  return {static_cast<int32_t>(p.plan.row_tiles), static_cast<int32_t>(p.plan.column_tiles), static_cast<int32_t>((p.k() + slice - 1) / slice),
          p.batch_invariant, p.gated() ? static_cast<int32_t>(p.columns()) : 0};
}

// grouped_hopper_half.cu, grouped_hopper_f8.cu: of rows that follow each other.
void grouped_hopper_half(const GroupedGemmParams& p, NativeStream stream);
void grouped_hopper_f8(const GroupedGemmParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

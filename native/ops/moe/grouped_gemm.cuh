// Rows times their experts' matrices on sm_80 and up: the tile kernel of the matrix products, one block a tile of one expert's rows.
#pragma once
#include "ops/moe/expert_weights.cuh"
#include "ops/moe/grouped_epilogue.cuh"
#include "ops/moe/grouped_tiles.h"

namespace culebra::CUL_DEVICE_NS {

// The rows of a tile, wherever they lie in a. The members of TileProblem are of the whole product, m of the tile.
struct GroupedRows : TileProblem {
  static constexpr bool kFetchesTokens = true;

  const int32_t* gather;
  int64_t a_rows, first_row;
  const float* a_scale;
  int64_t a_scale_stride;

  // -1: a row of zeros.
  CUL_DEVICE_FN int64_t row_of(int token) const {
    if (token >= m) return -1;
    if (!gather) return first_row + token;
    const int32_t row = gather[first_row + token];
    return row >= 0 && row < a_rows ? row : -1;
  }
  CUL_DEVICE_FN const float* token_scales(int token) const {
    const int64_t row = row_of(token);
    return row >= 0 ? a_scale + row * a_scale_stride : nullptr;
  }

  // Slice `index`, 128 bytes of each row; thread t brings chunk t % 8 (of 16 bytes) of the rows t / 8, t / 8 + kThreads / 8, ..
  template <class T, int kTokens, int kThreads, class Place>
  CUL_DEVICE_FN void fetch_tokens(T* slice, int index, int thread, Place place) const {
    static_assert(kTokens * 8 % kThreads == 0, "every thread brings equally many chunks");
    constexpr int kStep = kThreads / 8, kChunk = 16 / static_cast<int>(sizeof(T));
    const T* const rows = static_cast<const T*>(a);
    const int row = thread / 8, chunk = thread % 8;
    const int64_t first_k = int64_t{index} * 8 * kChunk, at = first_k + chunk * kChunk;
    if (a_aligned && first_k + 8 * kChunk <= k) {
#pragma unroll
      for (int i = 0; i < kTokens / kStep; ++i) {
        const int64_t from = row_of(row + i * kStep);  // a copy that only writes zeros still wants an aligned source
        copy_chunk<false>(slice + place(row + i * kStep, chunk) * kChunk, from >= 0 ? rows + from * lda + at : rows, from >= 0);
      }
      return;
    }
#pragma unroll 1
    for (int i = row; i < kTokens; i += kStep) {
      const int64_t from = row_of(i);
      Vector<T, kChunk> values;
#pragma unroll
      for (int j = 0; j < kChunk; ++j) values[j] = from >= 0 && at + j < k ? rows[from * lda + at + j] : T{};
      store_vector(slice + place(i, chunk) * kChunk, values);
    }
  }
};

// Computes: one tile of c[r] = epilogue(a[r] b[e]^T) for rows r of one expert e.
// Shapes:   a [a_rows, k], b [E, n, k], c [rows, n or n / 2]; any extents.
// Layouts:  row-major, any strides of rows and matrices; rows of a where gather says.
// Tiles:    GroupedTile16 .. (grouped_tiles.h) x 128 columns, with an activation 64 of gate and 64 of up; which rows: the list of tiles.
// Shared:   kStages x (tokens x 128 + two slices of weights) bytes; then the f32 tile of c, rows padded by 16 bytes.
// Order:    k ascending in one piece, in runs of 8 within 32 for int4 and for f8 with half tokens.
// Numerics: products exact, sums f32, a group's or block's scale multiplies its sum; one rounding to c. Bits do not depend on the tile.
// Needs:    sm_80 (cp.async, mma.m16n8k16).
// Source:   tile_gemm.cuh; sorted tiles of experts as in MegaBlocks (arXiv:2211.15841), gathered rows as in ScatterMoE (arXiv:2403.08245).
template <class Tile, class Weights>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
    grouped_gemm(GroupedRows rows, Weights weights, GroupedEpilogue epilogue, const GroupedTile* tiles, const int32_t* tile_count) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  BlockTile at = block_tile(rows);
  if (at.token_tile >= *tile_count) return;
  const GroupedTile tile = tiles[at.token_tile];
  at.token_tile = 0;
  rows.m = tile.rows;
  rows.first_row = tile.first_row;
  weights.select(tile.expert);
  const float* const sums = sum_tile<Tile>(rows, weights, at, shared);

  const bool gated = rows.pair_blocks > 0;
  const int columns = gated ? kColumnBlock : Tile::kColumns, chunks = columns / 8;  // that c has of this tile
  for (int i = static_cast<int>(threadIdx.x); i < tile.rows * chunks; i += Tile::kThreads) {
    const int row = i / chunks, column = i % chunks * 8;
    const float* const values = sums + row * sums_row<Tile> + column;
    epilogue.finish(tile.expert, tile.first_row + row, int64_t{at.column_tile} * columns + column, values, values + kColumnBlock);
  }
}

template <class Tile, class Weights>
void launch_grouped(const GroupedGemmParams& p, NativeStream stream) {
  static_assert(shared_bytes<Tile, Weights>() <= 99 << 10, "sm_86 and sm_89 have 99 KB for a block");
  constexpr int kRowsOfK = kSliceRowBytes / static_cast<int>(sizeof(typename Weights::Element));
  Weights weights{expert_source(p)};
  GroupedRows rows{};
  rows.a = p.a;
  rows.lda = p.lda;
  rows.k = p.k();
  rows.a_aligned = p.lda * static_cast<int64_t>(size_of(p.dtype)) % 16 == 0 || p.a_rows <= 1;
  rows.token_tiles = static_cast<int32_t>(p.plan.row_tiles);
  rows.column_tiles = static_cast<int32_t>(p.plan.column_tiles);
  rows.slices = static_cast<int32_t>((p.k() + kRowsOfK - 1) / kRowsOfK);
  rows.slices_per_split = rows.slices;
  rows.pair_blocks = weights.pair_blocks;
  rows.column_blocks = p.gated() ? 2 * weights.pair_blocks : (p.n() + kColumnBlock - 1) / kColumnBlock;
  rows.gather = p.gather;
  rows.a_rows = p.a_rows;
  rows.a_scale = p.a_scale;
  rows.a_scale_stride = p.a_scale_stride;
  unsigned char* const workspace = static_cast<unsigned char*>(p.workspace);
  launch(grouped_gemm<Tile, Weights>, dim3(static_cast<unsigned>(p.plan.row_tiles * p.plan.column_tiles)), dim3(Tile::kThreads),
         shared_bytes<Tile, Weights>(), stream, rows, weights, grouped_epilogue(p),
         reinterpret_cast<const GroupedTile*>(workspace + p.plan.tiles_offset), reinterpret_cast<const int32_t*>(workspace) + p.experts());
}

// grouped_half.cu, grouped_int4.cu, grouped_f8.cu: the products of each storage.
void grouped_half(const GroupedGemmParams& p, NativeStream stream);
void grouped_int4(const GroupedGemmParams& p, NativeStream stream);
void grouped_f8(const GroupedGemmParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

// The tensor-core product that the family shares: c = epilogue(a w^T + bias) over one tile of c per block, the weights
// behind a policy (half_weights.cuh, int4_weights.cuh, grouped_weights.cuh, int6_byte_weights.cuh).
//
// The weights are operand A of mma.m16n8k16 (bytes: m16n8k32) and the tokens operand B: n tiles are 8 tokens wide, so that decoding wastes at
// most 7 of 8 columns. Weight tile w (0..3) of a warp's 64 columns has column 8g + 2w in row g and 8g + 2w + 1 in row g + 8:
// lane 4g + t ends up with columns 8g .. 8g + 7 of tokens 2t and 2t + 1, which are 16-byte accesses of scales, bias and c.
#pragma once
#include "device/async_copy.h"
#include "device/barrier.h"
#include "device/launch.h"
#include "device/mma.h"
#include "device/vector.h"
#include "ops/gemm/tile/epilogue.cuh"
#include "ops/gemm/tile/tile_gemm.h"

namespace culebra::CUL_DEVICE_NS {

struct TileProblem {
  const void* a;
  int64_t lda;
  int64_t m, k;
  int32_t token_tiles, column_tiles;
  int32_t slices, slices_per_split;  // of k: 64 halves or 128 bytes of a row of a
  int64_t column_blocks;             // of 64 columns
  int64_t pair_blocks;               // > 0: the block's second 64 columns lie that many column blocks after the first
  float* partials;                   // [splits, m, partial_width], or null: the block finishes c itself
  int64_t partial_width;
  int32_t a_aligned;  // rows of a start at multiples of 16 bytes
  Output output;
};

// 16 bytes, asynchronously; what no other block reads is the first to leave L2.
template <bool kReadOnce>
CUL_DEVICE_FN void copy_chunk(void* destination, const void* source, bool predicate = true) {
  if constexpr (kReadOnce)
    cp_async_stream(shared_address(destination), source, predicate);
  else
    cp_async_l2(shared_address(destination), source, predicate);
}

// kRows rows of a slice of 128 bytes into shared memory by kThreads threads, zeros beyond the matrix. Thread t brings chunk t % 8 (of
// 16 bytes) of the rows t / 8, t / 8 + kThreads / 8, ..; place(row, chunk) says where a chunk lies, in chunks. Whole slices of aligned
// rows travel asynchronously, 16 bytes a copy; others element by element.
template <int kRows, int kThreads, bool kReadOnce, class T, class Place>
CUL_DEVICE_FN void fetch_rows(T* slice, const T* matrix, int64_t stride, bool aligned, int64_t first_row, int64_t rows, int64_t first_k,
                              int64_t k_end, int thread, Place place) {
  static_assert(kRows * 8 % kThreads == 0, "every thread brings equally many chunks");
  constexpr int kStep = kThreads / 8, kChunk = 16 / static_cast<int>(sizeof(T));
  const int row = thread / 8, chunk = thread % 8;
  const int64_t k = first_k + chunk * kChunk, valid = rows - first_row;
  if (aligned && first_k + 8 * kChunk <= k_end) {
    const T* const source = matrix + (first_row + row) * stride + k;
#pragma unroll
    for (int i = 0; i < kRows / kStep; ++i) {
      const bool inside = row + i * kStep < valid;  // a copy that only writes zeros still wants an aligned source
      copy_chunk<kReadOnce>(slice + place(row + i * kStep, chunk) * kChunk, inside ? source + i * kStep * stride : matrix, inside);
    }
    return;
  }
#pragma unroll 1
  for (int i = row; i < kRows; i += kStep) {
    Vector<T, kChunk> values;
#pragma unroll
    for (int j = 0; j < kChunk; ++j) values[j] = i < valid && k + j < k_end ? matrix[(first_row + i) * stride + k + j] : T{};
    store_vector(slice + place(i, chunk) * kChunk, values);
  }
}

// Tokens of one slice: [kTokens][8 chunks of 16 bytes], the chunks of a row permuted so that ldmatrix meets no bank twice.
CUL_DEVICE_FN int token_chunk(int token, int chunk) { return token * 8 + (chunk ^ (token & 7)); }

// The same where a lane's tokens are runs of 8 k (weights whose kRuns says so): lanes 4g + t of a quarter warp read chunks t of two tokens.
CUL_DEVICE_FN int run_chunk(int token, int chunk) { return token * 8 + (chunk ^ (token & 1) << 2); }
template <class Weights>
inline constexpr bool token_runs = requires { requires Weights::kRuns; };

// Which tile a block computes: 16 token tiles share a column tile before the next one, so that weights and a both stay in L2.
struct BlockTile {
  int token_tile, column_tile, split;
};
CUL_DEVICE_FN BlockTile block_tile(const TileProblem& p) {
  constexpr int kBand = 16;
  const int tiles = p.token_tiles * p.column_tiles, index = static_cast<int>(blockIdx.x) % tiles;
  const int band = index / (kBand * p.column_tiles), within = index % (kBand * p.column_tiles);
  const int rows = min(p.token_tiles - band * kBand, kBand);
  return {band * kBand + within % rows, within / rows, static_cast<int>(blockIdx.x) / tiles};
}

// A problem whose rows of a do not follow each other brings them itself (kFetchesTokens, fetch_tokens). Weights that need to know where a warp's tile lies
// have an accumulator with start().
//
// The f32 sums of one tile of a w^T, left in shared memory as [kTokens][sums_row<Tile>]; every thread of the block calls, and may
// read them all when it returns. Shared memory: shared_bytes<Tile, Weights>(); to be called again after a __syncthreads.
template <class Tile>
inline constexpr int sums_row = Tile::kColumns + 4;  // a row of the tile, padded by 16 bytes against bank conflicts

template <class Tile, class Weights, class Problem>
CUL_DEVICE_FN float* sum_tile(const Problem& p, const Weights& weights, const BlockTile& at, unsigned char* shared) {
  using T = typename Weights::Element;
  constexpr int kTokenBytes = Tile::kTokens * kSliceRowBytes, kRowsOfK = kSliceRowBytes / static_cast<int>(sizeof(T));
  constexpr int kSliceBytes = kTokenBytes + Tile::kColumnWarps * Weights::kSliceBytes;
  constexpr int kStageBytes = Tile::kKWarps * kSliceBytes;

  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int token_warp = warp % Tile::kTokenWarps, column_warp = warp / Tile::kTokenWarps % Tile::kColumnWarps,
            k_warp = warp / (Tile::kTokenWarps * Tile::kColumnWarps);
  const int64_t first_token = int64_t{at.token_tile} * Tile::kTokens;
  const int first_slice = at.split * p.slices_per_split, slice_end = min(first_slice + p.slices_per_split, p.slices);
  const int stages = (slice_end - first_slice + Tile::kKWarps - 1) / Tile::kKWarps;
  // The warp's 64 columns, in blocks of 64.
  const int64_t column_block = p.pair_blocks > 0 ? at.column_tile + column_warp * p.pair_blocks
                                                 : int64_t{at.column_tile} * Tile::kColumnWarps + column_warp;
  const auto slice_data = [&](int stage) { return shared + stage % Tile::kStages * kStageBytes + k_warp * kSliceBytes; };
  const auto slice_index = [&](int stage) { return first_slice + stage * Tile::kKWarps + k_warp; };

  // The warps of one k fetch its tokens together, those of the same columns also its weights: nobody else reads them.
  constexpr bool kWeightsReadOnce = Tile::kTokens < 128;  // a smaller tile is chosen where it holds all tokens
  constexpr int kWeightThreads = 32 * Tile::kTokenWarps, kSliceThreads = kWeightThreads * Tile::kColumnWarps;
  const auto fetch_stage = [&](int stage) {
    const int index = slice_index(stage);
    if (index < slice_end) {
      unsigned char* const data = slice_data(stage);
      if constexpr (requires { Problem::kFetchesTokens; })
        p.template fetch_tokens<T, Tile::kTokens, kSliceThreads>(
            reinterpret_cast<T*>(data), index, thread % kSliceThreads,
            [](int token, int chunk) { return token_runs<Weights> ? run_chunk(token, chunk) : token_chunk(token, chunk); });
      else
        fetch_rows<Tile::kTokens, kSliceThreads, false>(reinterpret_cast<T*>(data), static_cast<const T*>(p.a), p.lda, p.a_aligned != 0,
                                                        first_token, p.m, int64_t{index} * kRowsOfK, p.k, thread % kSliceThreads, token_chunk);
      if (column_block < p.column_blocks)
        weights.template fetch<kWeightThreads, kWeightsReadOnce>(data + kTokenBytes + column_warp * Weights::kSliceBytes, column_block, index,
                                               token_warp * 32 + lane);
    }
    cp_async_commit();
  };

  // Warps whose tokens or columns lie beyond c only help to fetch.
  const bool active = first_token + token_warp * 8 * Tile::kTokenTiles < p.m && column_block < p.column_blocks;
  typename Weights::template Accumulator<Tile::kTokenTiles> accumulator(lane);
  if constexpr (requires { accumulator.start(p, weights, int64_t{}, 0); })
    accumulator.start(p, weights, column_block, token_warp * 8 * Tile::kTokenTiles);

  const auto multiply_slice = [&](int stage, int index) {
    const unsigned char* const data = slice_data(stage);
    const unsigned char* const packed = data + kTokenBytes + column_warp * Weights::kSliceBytes;
    [[maybe_unused]] uint32_t following[Tile::kTokenTiles][2];  // the other half of a run
#pragma unroll
    for (int step = 0; step < 4; ++step) {  // 32 bytes of a row: the k of one mma
      uint32_t b[Tile::kTokenTiles][2];
      const int first = token_warp * 8 * Tile::kTokenTiles;
      if constexpr (token_runs<Weights>) {
#pragma unroll
        for (int i = 0; i < Tile::kTokenTiles; ++i) {
          if (step % 2 == 0) {
            const uint4 run = *reinterpret_cast<const uint4*>(data + run_chunk(first + i * 8 + lane / 4, step * 2 + lane % 4) * 16);
            b[i][0] = run.x, b[i][1] = run.y, following[i][0] = run.z, following[i][1] = run.w;
          } else {
            b[i][0] = following[i][0], b[i][1] = following[i][1];
          }
        }
      } else if constexpr (Tile::kTokenTiles == 1) {
        ldmatrix_x2(b[0], shared_address(data + token_chunk(first + lane % 8, step * 2 + lane / 8 % 2) * 16));
      } else {
#pragma unroll
        for (int i = 0; i < Tile::kTokenTiles; i += 2) {
          uint32_t pair[4];
          ldmatrix_x4(pair, shared_address(data + token_chunk(first + i * 8 + lane / 16 * 8 + lane % 8,
                                                              step * 2 + lane / 8 % 2) * 16));
          b[i][0] = pair[0], b[i][1] = pair[1], b[i + 1][0] = pair[2], b[i + 1][1] = pair[3];
        }
      }
      accumulator.multiply(weights, packed, index, step, b);
    }
  };

#pragma unroll
  for (int stage = 0; stage < Tile::kStages - 1; ++stage) fetch_stage(stage);
  for (int stage = 0; stage < stages; ++stage) {
    cp_async_wait<Tile::kStages - 2>();
    // All copies of this stage have landed, and everybody has left the one that is refilled now. The warps of another k are
    // strangers until the end: no barrier waits for them.
    named_barrier_sync(1 + k_warp, kSliceThreads);
    fetch_stage(stage + Tile::kStages - 1);
    const int index = slice_index(stage);
    if (active && index < slice_end) multiply_slice(stage, index);
  }
  accumulator.finish();
  cp_async_wait<0>();
  __syncthreads();

  // The k warps' sums, added in order in one f32 tile.
  constexpr int kRow = sums_row<Tile>;
  float* const sums = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int turn = 0; turn < Tile::kKWarps; ++turn) {
    if (turn == k_warp) {
#pragma unroll
      for (int i = 0; i < Tile::kTokenTiles; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int token = (token_warp * Tile::kTokenTiles + i) * 8 + lane % 4 * 2 + j / 2, half = j % 2;
          float4* const cell = reinterpret_cast<float4*>(sums + token * kRow + column_warp * 64 + lane / 4 * 8 + half * 4);
          float4 value = accumulator.columns(i, j / 2, half);
          if (turn > 0) {
            const float4 before = *cell;
            value = make_float4(before.x + value.x, before.y + value.y, before.z + value.z, before.w + value.w);
          }
          if constexpr (requires { weights.token_scale(int64_t{}); })
            if (turn == Tile::kKWarps - 1) {
              const float scale = first_token + token < p.m ? weights.token_scale(first_token + token) : 0.0f;
              value = make_float4(value.x * scale, value.y * scale, value.z * scale, value.w * scale);
            }
          *cell = value;
        }
    }
    __syncthreads();
  }
  return sums;
}

// Computes: one kTokens x kColumns tile of c = epilogue(a w^T + bias), or of a split's f32 partial sums.
// Shapes:   a [m, k], w [64 column_blocks, k of the slices] as the policy stores it, c [m, n]; any m, n, k.
// Layouts:  a row-major, any row stride; w: the policy's; c row-major.
// Tiles:    Tile (tile_gemm.h): per warp 64 columns x 8 kTokenTiles tokens; a stage is kKWarps slices of k.
// Shared:   kStages x (kKWarps x (kTokens x 128 + the policy's slice) bytes); then the f32 tile of c, rows padded by 16 bytes.
// Order:    k ascending within a slice; a warp takes every kKWarps-th slice; k warps are added in order 0, 1, ..; splits in order.
// Numerics: products exact, sums f32 (bytes: of a group in 32-bit integers); one rounding to c. Bits depend on the tile and the split, not on the run.
// Needs:    sm_80 (cp.async, mma.m16n8k16 or m16n8k32).
// Source:   Frantar et al., MARLIN, arXiv:2408.11743 (pipeline, streamed weights, k-split warps); operand order and layout ours.
template <class Tile, class Weights>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm) tile_gemm(TileProblem p, Weights weights) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const BlockTile at = block_tile(p);
  const float* const sums = sum_tile<Tile>(p, weights, at, shared);
  const int64_t first_token = int64_t{at.token_tile} * Tile::kTokens;

  const int columns = p.pair_blocks > 0 ? kColumnBlock : Tile::kColumns;  // that c has of this tile
  for (int i = static_cast<int>(threadIdx.x); i < Tile::kTokens * Tile::kColumns / 8; i += Tile::kThreads) {
    const int row = i / (Tile::kColumns / 8), column = i % (Tile::kColumns / 8) * 8;
    const int64_t token = first_token + row;
    if (token >= p.m) break;
    const float* const values = sums + row * sums_row<Tile> + column;
    if (p.partials) {
      const int64_t to = int64_t{at.column_tile} * Tile::kColumns + column;
      if (to >= p.partial_width) continue;
      float4* const out = reinterpret_cast<float4*>(p.partials + (at.split * p.m + token) * p.partial_width + to);
      out[0] = *reinterpret_cast<const float4*>(values);
      out[1] = *reinterpret_cast<const float4*>(values + 4);
    } else if (column < columns) {
      finish_columns<typename Weights::Element>(p.output, token, int64_t{at.column_tile} * columns + column, values, values + kColumnBlock);
    }
  }
}

template <class Tile, class Weights>
constexpr size_t shared_bytes() {
  constexpr size_t stages = size_t{Tile::kStages} * Tile::kKWarps *
                            (Tile::kTokens * kSliceRowBytes + Tile::kColumnWarps * Weights::kSliceBytes);
  constexpr size_t tile = size_t{Tile::kTokens} * sums_row<Tile> * 4;
  return stages > tile ? stages : tile;
}

template <class Tile, class Weights>
void launch_tiles(const TileProblem& p, const Weights& weights, int64_t splits, NativeStream stream) {
  static_assert(shared_bytes<Tile, Weights>() <= 99 << 10, "sm_86 and sm_89 have 99 KB for a block");
  const int64_t blocks = int64_t{p.token_tiles} * p.column_tiles * splits;
  launch(tile_gemm<Tile, Weights>, dim3(static_cast<unsigned>(blocks)), dim3(Tile::kThreads), shared_bytes<Tile, Weights>(),
         stream, p, weights);
}

}  // namespace culebra::CUL_DEVICE_NS

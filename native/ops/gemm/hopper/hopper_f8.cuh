// e4m3 weights b [n, k] for the product of compute capability 9.0 (hopper_gemm.cuh): both operands lie in shared memory as tensor maps
// bring them, 128 k a slice.
//
// The tensor cores keep fewer bits of a sum of e4m3 products than f32 has. So the sums of a slice start from zero, leave the tensor
// cores after its 128 k, and are added in f32, where the scales of their blocks belong to them anyway.
//
// Few tokens (HopperF8Columns): the weights are operand A, so that n of the instruction, the tokens, is as small as 16. Many
// (HopperF8Rows): the tokens are operand A, so that a thread's sums have two tokens a tile, and two scales.
#pragma once
#include "ops/gemm/hopper/hopper_f8.h"
#include "ops/gemm/hopper/hopper_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

inline constexpr int kF8SliceBytes = 128;  // of a row: 128 k

// Rows of bytes as the engine takes them, two at a time.
inline TensorMap byte_row_map(const void* matrix, int64_t row_stride, int64_t rows, int64_t k, int tile_rows) {
  return k > 0 && rows > 0 ? row_map(matrix, row_stride / 2, rows, k / 2, tile_rows) : TensorMap{};
}

// Scales of blocks (multiplied in while summing) or of tokens and channels (once, at the end).
struct HopperF8Scales {
  const float* a;  // [m, blocks of k], or [m], or one
  const float* b;  // [blocks of n, blocks of k], or [n], or one
  int64_t a_row, b_row;
  int64_t m, n;
  int32_t of_blocks;  // 1: of 128 k
  int32_t k_blocks;
};

// What the accumulators need to know of where weights come from.
struct HopperF8Source {
  using Element = void;  // bias has c's type
  static constexpr int kColumns = 128, kSliceBytes = kColumns * kF8SliceBytes;
  static constexpr int kFetchWarps = 1, kInFlight = 0;
  static constexpr int kHalves = 1;  // 2: the two times 64 columns of a tile have scales of their own

  HopperF8Scales scales;

#if CUL_HAS_SM90A
  CUL_DEVICE_FN uint32_t fetched_bytes() const { return kSliceBytes; }
  // Of a block of 128 k, which may lie behind the last one; 1 where scales are not of blocks.
  CUL_DEVICE_FN float a_block_scale(int64_t token, int block) const {
    if (!scales.of_blocks) return 1.0f;
    return token < scales.m && block < scales.k_blocks ? scales.a[token * scales.a_row + block] : 0.0f;
  }
  CUL_DEVICE_FN float b_block_scale(int column_tile, int, int block) const {
    if (!scales.of_blocks) return 1.0f;
    return block < scales.k_blocks ? scales.b[column_tile * scales.b_row + block] : 0.0f;
  }
  CUL_DEVICE_FN float a_token_scale(int64_t token) const {
    return scales.of_blocks ? 1.0f : token < scales.m ? scales.a[token * scales.a_row] : 0.0f;
  }
  CUL_DEVICE_FN float b_channel_scale(int64_t column) const {
    return scales.of_blocks ? 1.0f : column < scales.n ? scales.b[column * scales.b_row] : 0.0f;
  }
#endif
};

struct HopperF8 : HopperF8Source {
  TensorMap rows;     // of b, in boxes of kColumns x 128 k
  int32_t read_once;  // no other block reads these weights

#if CUL_HAS_SM90A
  CUL_DEVICE_FN int finished_columns() const { return kColumns; }
  CUL_DEVICE_FN void fetch(uint32_t slice, int column_tile, int index, int, uint32_t landed) const {
    if (read_once)
      tensor_copy_2d_stream(slice, rows, index * kSliceRows, column_tile * kColumns, landed);
    else
      tensor_copy_2d(slice, rows, index * kSliceRows, column_tile * kColumns, landed);
  }
#endif
};

// d = a b over a slice, both in shared memory.
#if CUL_HAS_SM90A
template <int N>
CUL_DEVICE_FN void multiply_f8_slice(float (&d)[N / 2], uint64_t a, uint64_t b) {
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kF8SliceBytes / 32; ++step)
    wgmma<float8_e4m3_t, N>(d, wgmma_advance(a, step * 32), wgmma_advance(b, step * 32), step > 0);
  wgmma_commit();
  wgmma_wait<0>();
}
#endif

// Two warpgroups of 64 columns; the tokens are theirs in common. A lane reads the scales of every 32nd token and has those that it
// needs from the other lanes: a quarter of the tile's, which reading would cost more instructions than the product.
template <class Source>
struct HopperF8ColumnsOf : Source {
#if CUL_HAS_SM90A
  template <int kTokens>
  struct Accumulator {
    static constexpr int kOwn = (kTokens + 31) / 32;
    const Source* weights = nullptr;
    int warp, lane, column_tile = 0, slice = 0;
    int64_t token = 0;  // the tile's first
    float total[kTokens / 2] = {}, sum[kTokens / 2];
    float a_scale[kOwn], b_scale;  // of the next slice: a product lasts no longer than a read

    CUL_DEVICE_FN Accumulator(int warp, int lane) : warp(warp), lane(lane) {}
    CUL_DEVICE_FN void start(const Source& policy, int64_t first_token, int tile, int first_slice) {
      weights = &policy;
      token = first_token;
      column_tile = tile;
      slice = first_slice;
      read_scales();
    }
    CUL_DEVICE_FN void read_scales() {
      b_scale = weights->b_block_scale(column_tile, warp / 4, slice);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) a_scale[i] = weights->a_block_scale(token + lane + i * 32, slice);
    }

    CUL_DEVICE_FN void multiply(const Source&, const unsigned char* data, uint64_t tokens) {
      float own[kOwn];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) own[i] = a_scale[i] * b_scale;
      ++slice;
      read_scales();
      multiply_f8_slice<kTokens>(sum, wgmma_descriptor(shared_address(data) + static_cast<uint32_t>(warp / 4 * 64 * kF8SliceBytes)), tokens);
#pragma unroll
      for (int i = 0; i < kTokens / 2; i += 4)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          const float scale = __shfl_sync(kFullMask, own[i * 2 / 32], i * 2 % 32 + lane % 4 * 2 + odd);
          total[i + odd] = fmaf(sum[i + odd], scale, total[i + odd]);
          total[i + odd + 2] = fmaf(sum[i + odd + 2], scale, total[i + odd + 2]);
        }
    }
    CUL_DEVICE_FN void finish() {}

    CUL_DEVICE_FN void store(float* sums, int row) const {
      const int column = warp * 16 + lane / 4;
      const int64_t channel = int64_t{column_tile} * Source::kColumns + column;
      const float low = weights->b_channel_scale(channel), high = weights->b_channel_scale(channel + 8);
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i) {
        const int of_tile = i / 4 * 8 + lane % 4 * 2 + i % 2;
        const float scale = weights->a_token_scale(token + of_tile) * (i / 2 % 2 ? high : low);
        sums[of_tile * row + column + i / 2 % 2 * 8] = total[i] * scale;
      }
    }
  };
#endif
};
using HopperF8Columns = HopperF8ColumnsOf<HopperF8>;

// Warpgroups of 64 or 128 tokens; the 128 columns are theirs in common.
template <class Source>
struct HopperF8RowsOf : Source {
  static constexpr int kColumns = Source::kColumns, kHalves = Source::kHalves;

#if CUL_HAS_SM90A
  template <int kTokens>
  struct Accumulator {
    static constexpr int kTiles = kTokens / 64;
    const Source* weights = nullptr;
    int warp, lane, column_tile = 0, slice = 0;
    int64_t token = 0;  // the lane's first; it has 2 of every 64
    float total[kTiles][kColumns / 2] = {}, sum[kColumns / 2];
    float a_scale[kTiles][2], b_scale[kHalves];  // of the next slice: a product lasts no longer than a read

    CUL_DEVICE_FN Accumulator(int warp, int lane) : warp(warp), lane(lane) {}
    CUL_DEVICE_FN void start(const Source& policy, int64_t first_token, int tile, int first_slice) {
      weights = &policy;
      token = first_token + warp * 16 + lane / 4;
      column_tile = tile;
      slice = first_slice;
      read_scales();
    }
    CUL_DEVICE_FN void read_scales() {
#pragma unroll
      for (int half = 0; half < kHalves; ++half) b_scale[half] = weights->b_block_scale(column_tile, half, slice);
#pragma unroll
      for (int i = 0; i < 2 * kTiles; ++i) a_scale[i / 2][i % 2] = weights->a_block_scale(token + i / 2 * 64 + i % 2 * 8, slice);
    }

    CUL_DEVICE_FN void multiply(const Source&, const unsigned char* data, uint64_t tokens) {
      float scale[kHalves][kTiles][2];
#pragma unroll
      for (int half = 0; half < kHalves; ++half)
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) scale[half][i / 2][i % 2] = b_scale[half] * a_scale[i / 2][i % 2];
      ++slice;
      read_scales();
      const uint64_t columns = wgmma_descriptor(shared_address(data));
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        multiply_f8_slice<kColumns>(sum, wgmma_advance(tokens, tile * 64 * kF8SliceBytes), columns);
#pragma unroll
        for (int i = 0; i < kColumns / 2; ++i) total[tile][i] = fmaf(sum[i], scale[i * kHalves / (kColumns / 2)][tile][i / 2 % 2], total[tile][i]);
      }
    }
    CUL_DEVICE_FN void finish() {}

    CUL_DEVICE_FN void store(float* sums, int row) const {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
        for (int i = 0; i < kColumns / 2; i += 2) {
          const int of_group = tile * 64 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2;
          const float scale = weights->a_token_scale(token + of_group);
          const int64_t channel = int64_t{column_tile} * kColumns + column;
          *reinterpret_cast<float2*>(sums + (of_group + warp * 16 + lane / 4) * row + column) =
              make_float2(total[tile][i] * (scale * weights->b_channel_scale(channel)),
                          total[tile][i + 1] * (scale * weights->b_channel_scale(channel + 1)));
        }
    }
  };
#endif
};
using HopperF8Rows = HopperF8RowsOf<HopperF8>;

}  // namespace culebra::CUL_DEVICE_NS

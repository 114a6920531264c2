// int4 weights in MarlinLayout as operand A of the product for compute capability 9.0.
//
// A word of a lane is the fragment of one m64 tile's 16 rows that its warp has: where the four warps of a warpgroup take 64 columns
// each, four wgmma, one for each word, multiply 256 columns by 16 k. A slice of 64 k of 64 columns is 2 KB without a gap: one bulk copy.
// As in int4_weights.cuh, q - z is exact and the scale multiplies the f32 sum of each group (or of the part of it in a slice).
#pragma once
#include "ops/gemm/hopper/hopper_gemm.cuh"
#include "ops/gemm/tile/int4_dequantize.cuh"
#include "ops/gemm/packing/marlin_layout.h"

namespace culebra::CUL_DEVICE_NS {

template <class T>
struct HopperInt4 {
  using Element = T;
  static constexpr int kColumns = kHopperInt4Columns;
  static constexpr int kFetchWarps = 4, kInFlight = 0;  // a warp fetches 64 columns
  // A slice: four blocks of 64 columns; scales and zeros of its (up to two) groups.
  static constexpr int kBlockBytes = kColumnBlock * kSliceRows / 2, kScalesAt = 4 * kBlockBytes, kZerosAt = kScalesAt + 2 * kColumns * 2;
  static constexpr int kSliceBytes = kZerosAt + 2 * kColumns;

  const uint8_t* packed;
  const uint16_t* scales;  // [groups, n_padded]
  const uint8_t* zeros;    // [groups, n_padded], or null: 8
  int64_t n_padded, k_padded;
  int64_t column_blocks;  // of 64 columns
  int64_t pair_blocks;    // > 0: the tile's other 128 columns lie that many column blocks after the first ones (silu_mul)
  int32_t group_shift;    // group of row k: k >> group_shift
  int32_t scales_bf16;
  int32_t read_once;      // no other block reads these weights

#if CUL_HAS_SM90A
  // Columns of c that a tile gives.
  CUL_DEVICE_FN int finished_columns() const { return pair_blocks > 0 ? kColumns / 2 : kColumns; }
  CUL_DEVICE_FN int groups_of_slice() const { return group_shift == 5 ? 2 : 1; }
  CUL_DEVICE_FN uint32_t fetched_bytes() const { return static_cast<uint32_t>(kBlockBytes + groups_of_slice() * kColumnBlock * (zeros ? 3 : 2)); }

  // A thread copies 64 columns of a slice. Beyond the last column the last block is fetched again: its sums are not used.
  CUL_DEVICE_FN void fetch(uint32_t slice, int column_tile, int index, int part, uint32_t landed) const {
    const int64_t wanted = pair_blocks > 0 ? int64_t{2} * column_tile + part % 2 + part / 2 * pair_blocks : int64_t{4} * column_tile + part;
    const int64_t block = min(wanted, column_blocks - 1);
    const uint8_t* const source = packed + (block * (k_padded / kSliceRows) + index) * kBlockBytes;
    if (read_once)
      bulk_copy_stream(slice + part * kBlockBytes, source, kBlockBytes, landed);
    else
      bulk_copy(slice + part * kBlockBytes, source, kBlockBytes, landed);
    for (int half = 0; half < groups_of_slice(); ++half) {
      const int64_t group = (int64_t{index} * kSliceRows + half * 32) >> group_shift, entry = group * n_padded + block * kColumnBlock;
      const int column = half * kColumns + part * kColumnBlock;
      bulk_copy(slice + kScalesAt + column * 2, scales + entry, kColumnBlock * 2, landed);
      if (zeros) bulk_copy(slice + kZerosAt + column, zeros + entry, kColumnBlock, landed);
    }
  }

  template <int kTokens>
  struct Accumulator {
    // The words that a warp has of each lane's four: all, or for 128 tokens half of them, and two warps share 64 columns.
    static constexpr int kWords = kTokens <= 64 ? 4 : 2;
    // What has sums in registers beside the totals: all words for up to 32 tokens, otherwise one word for 64 tokens at a time.
    static constexpr int kSums = kTokens <= 32 ? kWords : 1, kPart = kTokens <= 64 ? kTokens : 64;
    static constexpr int kBuffers = kSums > 1 ? 2 : 4;
    int lane, block, column;  // the warp's 64 columns, and the lane's first among the tile's
    float total[kWords][kTokens / 2] = {};
    float sum[kSums][kPart / 2];
    uint32_t a[kBuffers][kSums][4];  // the fragments of the last steps of 16 k: wgmma reads them while the next are made

    CUL_DEVICE_FN Accumulator(int warp, int lane)
        : lane(lane), block(warp * kWords / 4), column(block * kColumnBlock + lane / 4 * 8 + warp * kWords % 4 * 2) {}

    CUL_DEVICE_FN void multiply(const HopperInt4& weights, const unsigned char* slice, uint64_t tokens) {
      if (weights.group_shift == 5)
        multiply_groups<2>(weights, slice, tokens);
      else
        multiply_groups<1>(weights, slice, tokens);
    }

    // A slice with kGroups groups.
    template <int kGroups>
    CUL_DEVICE_FN void multiply_groups(const HopperInt4& weights, const unsigned char* slice, uint64_t tokens) {
      constexpr int kSteps = kSliceRows / 16 / kGroups;
      using Words = Vector<uint32_t, kWords>;
      using Zeros = Vector<uint32_t, kWords / 2>;
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
        Words words[kSteps];
#pragma unroll
        for (int step = 0; step < kSteps; ++step)
          words[step] = *reinterpret_cast<const Words*>(slice + block * kBlockBytes + (group * kSteps + step) * 512 + lane * 16 + column % 8 * 2);
        Zeros zeros;
#pragma unroll
        for (int i = 0; i < kWords / 2; ++i) zeros[i] = 0x08080808u;
        if (weights.zeros) zeros = *reinterpret_cast<const Zeros*>(slice + kZerosAt + group * kColumns + column);
        const Words scales = *reinterpret_cast<const Words*>(slice + kScalesAt + (group * kColumns + column) * 2);
#pragma unroll
        for (int first = 0; first < kWords; first += kSums) {
#pragma unroll
          for (int part = 0; part < kTokens / kPart; ++part) {
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
              if (part == 0) {
                if (step >= kBuffers) wgmma_wait<1>();
#pragma unroll
                for (int i = 0; i < kSums; ++i) {
                  const int w = first + i;
                  const uint32_t low = int4_bias<T>(zeros[w / 2], w % 2 * 2), high = int4_bias<T>(zeros[w / 2], w % 2 * 2 + 1);
                  dequantize<T>(words[step][w], low, high, a[step % kBuffers][i]);
                }
              }
              const uint64_t b = wgmma_advance(tokens, part * kPart * kSliceRows * 2 + (group * kSteps + step) * 32);
              wgmma_fence();
#pragma unroll
              for (int i = 0; i < kSums; ++i) wgmma<T, kPart>(sum[i], a[step % kBuffers][i], b, step > 0);
              wgmma_commit();
            }
            wgmma_wait<0>();
#pragma unroll
            for (int i = 0; i < kSums; ++i) {
              const uint32_t pair = scales[first + i];
              const float low = half_scale(pair, weights.scales_bf16), high = half_scale(pair >> 16, weights.scales_bf16);
#pragma unroll
              for (int j = 0; j < kPart / 2; ++j) {
                float& to = total[first + i][part * kPart / 2 + j];
                to = fmaf(j % 4 < 2 ? low : high, sum[i][j], to);
              }
            }
          }
        }
      }
    }
    CUL_DEVICE_FN void finish() {}

    // The warp's columns of the f32 tile.
    CUL_DEVICE_FN void store(float* sums, int row) const {
#pragma unroll
      for (int i = 0; i < kTokens / 2; i += 4)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd)
#pragma unroll
          for (int w = 0; w < kWords; w += 2)
            *reinterpret_cast<float4*>(sums + (i * 2 + lane % 4 * 2 + odd) * row + column + w * 2) =
                make_float4(total[w][i + odd], total[w][i + odd + 2], total[w + 1][i + odd], total[w + 1][i + odd + 2]);
    }
  };
#endif
};

}  // namespace culebra::CUL_DEVICE_NS

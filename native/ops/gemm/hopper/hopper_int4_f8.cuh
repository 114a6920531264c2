// int4 weights in Int4ByteFragments, e4m3 tokens: the weights are operand A, from registers, of the product of compute capability 9.0
// (hopper_gemm.cuh), 128 k and so one group a slice.
//
// Every int4 value is an e4m3 number. A byte permutation by a word's codes looks four of them up, in the table of the negative ones and
// in that of the others, and a third one picks: nothing is multiplied, and nothing rounded. The group's scale multiplies the f32 sum of
// its 128 products, which leaves the tensor cores then anyway (hopper_f8.cuh).
//
// Order of operand A as in hopper_int4.cuh: a warp has 64 columns of its own, and four wgmma multiply 256 columns by 32 k.
#pragma once
#include "device/bits.h"
#include "ops/gemm/hopper/hopper_f8.cuh"

namespace culebra::CUL_DEVICE_NS {

struct HopperInt4F8 {
  using Element = void;
  static constexpr int kColumns = 256;
  static constexpr int kFetchWarps = 4, kInFlight = 0;  // a warp fetches 64 columns
  static constexpr int kBlockBytes = kColumnBlock * kF8SliceBytes / 2, kScalesAt = 4 * kBlockBytes, kSliceBytes = kScalesAt + kColumns;

  const uint8_t* packed;
  const uint8_t* scales;       // f8e4m3 [groups, n_padded]
  const float* a_scale;        // [m]
  const float* channel_scale;  // [n]
  int64_t n_padded, k_padded, m, n;
  int64_t column_blocks;  // of 64 columns
  int64_t pair_blocks;    // > 0: the tile's other 128 columns lie that many column blocks after the first ones (silu_mul)
  int32_t read_once;      // no other block reads these weights

#if CUL_HAS_SM90A
  // Columns of c that a tile gives.
  CUL_DEVICE_FN int finished_columns() const { return pair_blocks > 0 ? kColumns / 2 : kColumns; }
  CUL_DEVICE_FN uint32_t fetched_bytes() const { return kBlockBytes + kColumnBlock; }
  // Of a quarter of a tile; beyond the last column the last block again: its sums are not used.
  CUL_DEVICE_FN int64_t block_of(int column_tile, int part) const {
    const int64_t wanted = pair_blocks > 0 ? int64_t{2} * column_tile + part % 2 + part / 2 * pair_blocks : int64_t{4} * column_tile + part;
    return min(wanted, column_blocks - 1);
  }
  CUL_DEVICE_FN void fetch(uint32_t slice, int column_tile, int index, int part, uint32_t landed) const {
    const int64_t block = block_of(column_tile, part);
    const uint8_t* const source = packed + (block * (k_padded / kF8SliceBytes) + index) * kBlockBytes;
    if (read_once)
      bulk_copy_stream(slice + part * kBlockBytes, source, kBlockBytes, landed);
    else
      bulk_copy(slice + part * kBlockBytes, source, kBlockBytes, landed);
    bulk_copy(slice + kScalesAt + part * kColumnBlock, scales + index * n_padded + block * kColumnBlock, kColumnBlock, landed);
  }

  // The e4m3 numbers of a word's eight codes: k .. k + 3 in `low`, k + 16 .. in `high`.
  static CUL_DEVICE_FN void look_up(uint32_t word, uint32_t& low, uint32_t& high) {
    constexpr uint32_t kNegative[2] = {0xcaccced0u, 0xb8c0c4c8u};  // -8 .. -1
    constexpr uint32_t kOthers[2] = {0x44403800u, 0x4e4c4a48u};    // 0 .. 7
    const uint32_t code = word & 0x77777777u, pick = lop3<((0xf0 & 0xcc) | 0xaa)>(word >> 1, 0x44444444u, 0x32103210u);
    low = prmt(prmt(kNegative[0], kNegative[1], code), prmt(kOthers[0], kOthers[1], code), pick);
    high = prmt(prmt(kNegative[0], kNegative[1], code >> 16), prmt(kOthers[0], kOthers[1], code >> 16), pick >> 16);
  }

  template <int kTokens>
  struct Accumulator {
    // For up to 32 tokens the sums of all four m16 tiles fit the registers beside the totals; for 64 one's at a time.
    static constexpr int kTiles = kTokens <= 32 ? 4 : 1, kSteps = kF8SliceBytes / 32;
    const HopperInt4F8* weights = nullptr;
    int warp, lane, column_tile = 0;
    int64_t token = 0;  // the warpgroup's first
    float total[4][kTokens / 2] = {};
    float sum[kTiles][kTokens / 2];
    uint32_t a[2][kTiles][4];  // the fragments of the last two steps of 32 k: wgmma reads them while the next are made

    CUL_DEVICE_FN Accumulator(int warp, int lane) : warp(warp), lane(lane) {}
    CUL_DEVICE_FN void start(const HopperInt4F8& policy, int64_t first_token, int tile, int) {
      weights = &policy;
      token = first_token;
      column_tile = tile;
    }

    CUL_DEVICE_FN void multiply(const HopperInt4F8&, const unsigned char* slice, uint64_t tokens) {
      const uint2 scales = *reinterpret_cast<const uint2*>(slice + kScalesAt + warp * kColumnBlock + lane / 4 * 8);
#pragma unroll
      for (int first = 0; first < 4; first += kTiles) {
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          if (step >= 2) wgmma_wait<1>();
#pragma unroll
          for (int i = 0; i < kTiles; i += 2) {
            // 16 bytes of a lane: both rows of an even m16 tile, then of the next one.
            const int pair = (first + i) / 2;
            const auto at = reinterpret_cast<const uint4*>(slice + warp * kBlockBytes + step * 1024 + pair * 512 + lane * 16);
            if constexpr (kTiles == 1) {
              const uint2 words = reinterpret_cast<const uint2*>(at)[first % 2];
              look_up(words.x, a[step % 2][0][0], a[step % 2][0][2]);
              look_up(words.y, a[step % 2][0][1], a[step % 2][0][3]);
            } else {
              const uint4 words = *at;
              look_up(words.x, a[step % 2][i][0], a[step % 2][i][2]);
              look_up(words.y, a[step % 2][i][1], a[step % 2][i][3]);
              look_up(words.z, a[step % 2][i + 1][0], a[step % 2][i + 1][2]);
              look_up(words.w, a[step % 2][i + 1][1], a[step % 2][i + 1][3]);
            }
          }
          wgmma_fence();
#pragma unroll
          for (int i = 0; i < kTiles; ++i) wgmma<float8_e4m3_t, kTokens>(sum[i], a[step % 2][i], wgmma_advance(tokens, step * 32), step > 0);
          wgmma_commit();
        }
        wgmma_wait<0>();
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          const int tile = first + i;
          const uint32_t pair = (tile < 2 ? scales.x : scales.y) >> (tile % 2 * 16);
          const float low = to_float(float8_e4m3_t{static_cast<uint8_t>(pair)}), high = to_float(float8_e4m3_t{static_cast<uint8_t>(pair >> 8)});
#pragma unroll
          for (int j = 0; j < kTokens / 2; ++j) total[tile][j] = fmaf(j % 4 < 2 ? low : high, sum[i][j], total[tile][j]);
        }
      }
    }
    CUL_DEVICE_FN void finish() {}

    // The warpgroup's tokens x the warp's 64 columns of the f32 tile, times the scales of tokens and channels.
    CUL_DEVICE_FN void store(float* sums, int row) const {
      const int64_t column = weights->block_of(column_tile, warp) * kColumnBlock + lane / 4 * 8;
      float channel[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) channel[i] = column + i < weights->n ? weights->channel_scale[column + i] : 0.0f;
#pragma unroll
      for (int i = 0; i < kTokens / 2; i += 4)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          const int of_group = i * 2 + lane % 4 * 2 + odd;
          const float scale = token + of_group < weights->m ? weights->a_scale[token + of_group] : 0.0f;
          float x[8];
#pragma unroll
          for (int j = 0; j < 8; ++j) x[j] = total[j / 2][i + odd + j % 2 * 2] * (scale * channel[j]);
          float4* const out = reinterpret_cast<float4*>(sums + of_group * row + warp * kColumnBlock + lane / 4 * 8);
          out[0] = make_float4(x[0], x[1], x[2], x[3]);
          out[1] = make_float4(x[4], x[5], x[6], x[7]);
        }
    }
  };
#endif
};

}  // namespace culebra::CUL_DEVICE_NS

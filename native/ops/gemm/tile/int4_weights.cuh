// int4 weights in MarlinLayout as operand A of the tile kernel.
//
// q - z is exact in a half (int4_dequantize.cuh), so products with a are exact in f32; the scale multiplies each group's
// f32 sum once. That costs fewer instructions than scaling weights for up to 32 tokens a warp, rounds nothing, and lets scales be
// of the other half type: a bf16 scale beyond the range of f16 is no special case.
#pragma once
#include "device/mma.h"
#include "ops/gemm/tile/int4_dequantize.cuh"
#include "ops/gemm/packing/marlin_layout.h"
#include "ops/gemm/tile/tile_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

template <class T, bool kZeros>
struct Int4Weights {
  using Element = T;
  // A slice of 64 columns in shared memory: 4 blocks of 16 k; scales and zeros of its (up to two) groups.
  static constexpr int kScalesAt = 64 * 64 / 2, kZerosAt = kScalesAt + 2 * 64 * 2;
  static constexpr int kSliceBytes = kZerosAt + (kZeros ? 2 * 64 : 0);

  const uint8_t* packed;
  const uint16_t* scales;  // [groups, n_padded]
  const uint8_t* zeros;    // [groups, n_padded]
  int64_t n_padded, k_padded;
  int32_t group_shift;  // group of row k: k >> group_shift
  int32_t scales_bf16;

  template <int kThreads, bool kReadOnce>
  CUL_DEVICE_FN void fetch(unsigned char* slice, int64_t column_block, int index, int thread) const {
    const uint8_t* const source = packed + (column_block * (k_padded / 16) + index * (kSliceRows / 16)) * 512;
#pragma unroll
    for (int i = 0; i < kScalesAt / 16 / kThreads; ++i) {
      const int chunk = (thread + i * kThreads) * 16;
      copy_chunk<kReadOnce>(slice + chunk, source + chunk);
    }
    static_assert(kThreads >= 32 && kScalesAt / 16 % kThreads == 0);
    const int halves = group_shift == 5 ? 2 : 1;  // groups of 32: two in a slice
    if (thread < 8 * halves) {
      const int64_t group = (int64_t{index} * kSliceRows + thread / 8 * 32) >> group_shift;
      cp_async_l2(shared_address(slice + kScalesAt + thread * 16), scales + group * n_padded + column_block * 64 + thread % 8 * 8);
    } else if (kZeros && thread >= 16 && thread < 16 + 4 * halves) {
      const int i = thread - 16;
      const int64_t group = (int64_t{index} * kSliceRows + i / 4 * 32) >> group_shift;
      cp_async_l2(shared_address(slice + kZerosAt + i * 16), zeros + group * n_padded + column_block * 64 + i % 4 * 16);
    }
  }

  template <int kTokenTiles>
  struct Accumulator {
    int lane;
    int64_t group = -1;
    int32_t scales_bf16 = 0;
    uint4 scales{};            // of the lane's 8 columns in the group
    uint32_t bias[kZeros ? 8 : 1];  // of its columns
    float sum[4][kTokenTiles][4] = {};    // of the group, unscaled
    float total[4][kTokenTiles][4] = {};  // of the groups before

    CUL_DEVICE_FN explicit Accumulator(int lane) : lane(lane) {}

    CUL_DEVICE_FN void finish() {
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const uint32_t pair = component(scales, w);
        const float low = half_scale(pair, scales_bf16), high = half_scale(pair >> 16, scales_bf16);
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            total[w][i][j] = fmaf(j < 2 ? low : high, sum[w][i][j], total[w][i][j]);
            sum[w][i][j] = 0;
          }
      }
    }

    CUL_DEVICE_FN void begin_group(const Int4Weights& weights, const unsigned char* slice, int half) {
      finish();
      scales_bf16 = weights.scales_bf16;
      scales = *reinterpret_cast<const uint4*>(slice + kScalesAt + half * 128 + lane / 4 * 16);
      if constexpr (kZeros) {
        const uint2 zeros = *reinterpret_cast<const uint2*>(slice + kZerosAt + half * 64 + lane / 4 * 8);
#pragma unroll
        for (int i = 0; i < 8; ++i) bias[i] = int4_bias<T>(i < 4 ? zeros.x : zeros.y, i % 4);
      }
    }

    // 16 k of a slice.
    CUL_DEVICE_FN void multiply(const Int4Weights& weights, const unsigned char* slice, int index, int step,
                                const uint32_t (&b)[kTokenTiles][2]) {
      if (step % 2 == 0) {
        const int64_t now = (int64_t{index} * kSliceRows + step * 16) >> weights.group_shift;
        if (now != group) begin_group(weights, slice, weights.group_shift == 5 ? step / 2 : 0);
        group = now;
      }
      const uint4 words = *reinterpret_cast<const uint4*>(slice + (step * 32 + lane) * 16);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        uint32_t a[4];
        constexpr uint32_t kEight = int4_magic<T> | 0x00080008u;
        dequantize<T>(component(words, w), kZeros ? bias[2 * w] : kEight, kZeros ? bias[2 * w + 1] : kEight, a);
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i) mma_m16n8k16<T>(sum[w][i], a, b[i][0], b[i][1]);
      }
    }

    // Columns 4 half .. 4 half + 3 of the lane's eight, for token `odd` of its two in token tile i.
    CUL_DEVICE_FN float4 columns(int i, int odd, int half) const {
      return make_float4(total[2 * half][i][odd], total[2 * half][i][odd + 2], total[2 * half + 1][i][odd],
                         total[2 * half + 1][i][odd + 2]);
    }
  };
};

}  // namespace culebra::CUL_DEVICE_NS

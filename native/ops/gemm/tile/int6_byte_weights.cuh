// 6-bit weights as operand A of the tile kernel: i8 operands, m16n8k32. A weight's six bits go to the top of a byte, which then is four times
// the weight; a group of 128 k, one slice, is summed exactly in 32 bits: |sum| <= 128 x 128 x 128. Layout: SixBitByteFragments.
#pragma once
#include "ops/gemm/tile/grouped_weights.cuh"

namespace culebra::CUL_DEVICE_NS {

// Bias is of c's type, which the operands' does not say.
template <>
CUL_DEVICE_FN float bias_of<int8_t>(const Output& o, int64_t column) {
  return o.dtype == DType::f16 ? bias_of<half_t>(o, column) : bias_of<bfloat16_t>(o, column);
}

struct Int6ByteWeights : PackedSource {
  using Element = int8_t;
  static constexpr int kHighAt = 64 * 128 / 2, kScalesAt = 64 * 128 * 6 / 8, kSliceBytes = kScalesAt + 64 * 2;

  const float* a_scale;  // [m]

  CUL_DEVICE_FN float token_scale(int64_t token) const { return a_scale[token]; }

  template <int kThreads, bool kReadOnce>
  CUL_DEVICE_FN void fetch(unsigned char* slice, int64_t column_block, int index, int thread) const {
    fetch_packed<kScalesAt, kThreads, kReadOnce>(slice, *this, column_block, index, thread);
    if (thread < 8) fetch_scales(slice + kScalesAt, *this, column_block, index, thread);
  }

  template <int kTokenTiles>
  struct Accumulator {
    int lane;
    int sum[4][kTokenTiles][4] = {};      // of the group, times 4
    float total[4][kTokenTiles][4] = {};  // of the groups before

    CUL_DEVICE_FN explicit Accumulator(int lane) : lane(lane) {}
    CUL_DEVICE_FN void finish() {}

    // 32 k of a slice.
    CUL_DEVICE_FN void multiply(const Int6ByteWeights& weights, const unsigned char* slice, int, int step, const uint32_t (&b)[kTokenTiles][2]) {
      constexpr int kAndOr = (0xf0 & 0xcc) | 0xaa;
      const uint4 high = *reinterpret_cast<const uint4*>(slice + kHighAt + (step * 32 + lane) * 16);
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const uint4 low = *reinterpret_cast<const uint4*>(slice + ((step * 2 + pair) * 32 + lane) * 16);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int w = 2 * pair + i;
          uint32_t a[4];
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const uint32_t four = word_of(low, 2 * i + r), two = word_of(high, w);
            a[r] = lop3<kAndOr>(four << 2, 0x3c3c3c3cu, two << (6 - 4 * r) & 0xc0c0c0c0u);
            a[2 + r] = lop3<kAndOr>(four >> 2, 0x3c3c3c3cu, two << (4 - 4 * r) & 0xc0c0c0c0u);
          }
#pragma unroll
          for (int t = 0; t < kTokenTiles; ++t) mma_m16n8k32_s8(sum[w][t], a, b[t][0], b[t][1]);
        }
      }
      if (step == 3) end_group(slice + kScalesAt, weights.scale_dtype);
    }

    CUL_DEVICE_FN void end_group(const unsigned char* scales_at, DType dtype) {
      LaneScales scales;
      scales.load(scales_at, dtype, lane);
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float low = scales[2 * w] * 0.25f, high = scales[2 * w + 1] * 0.25f;
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            total[w][i][j] = fmaf(j < 2 ? low : high, static_cast<float>(sum[w][i][j]), total[w][i][j]);
            sum[w][i][j] = 0;
          }
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

// 8- and 6-bit weights as operand A of the tile kernel: half operands. A format (byte_formats.cuh) turns a lane's words into halves that
// are exactly q - z; the scale multiplies each group's f32 sum once.
#pragma once
#include "device/bits.h"
#include "device/mma.h"
#include "ops/gemm/tile/tile_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

// What the fetching of a slice reads: the packed matrix in slices of 64 columns, its scales and zero points.
struct PackedSource {
  const uint8_t* packed;
  const void* scales;    // [groups, n_padded]; f32: [groups, ceil(n_padded / 128)]
  const uint8_t* zeros;  // [groups, n_padded], or null: symmetric
  int64_t n_padded, slices;
  int32_t group_shift;  // group of row k: k >> group_shift
  DType scale_dtype;

  CUL_DEVICE_FN bool blocks() const { return scale_dtype == DType::f32; }
};

template <int kSliceBytes, int kThreads, bool kReadOnce>
CUL_DEVICE_FN void fetch_packed(unsigned char* slice, const PackedSource& w, int64_t column_block, int index, int thread) {
  const uint8_t* const source = w.packed + (column_block * w.slices + index) * kSliceBytes;
#pragma unroll
  for (int chunk = 0; chunk < kSliceBytes / 16; chunk += kThreads)
    if (kSliceBytes / 16 % kThreads == 0 || chunk + thread < kSliceBytes / 16)
      copy_chunk<kReadOnce>(slice + (chunk + thread) * 16, source + (chunk + thread) * 16);
}
// One group's scales of a block of 64 columns: 128 bytes, or the one of a block of 128 columns; by 8 threads, thread 0..7.
CUL_DEVICE_FN void fetch_scales(unsigned char* to, const PackedSource& w, int64_t column_block, int64_t group, int thread) {
  if (!w.blocks())
    cp_async_l2(shared_address(to + thread * 16), static_cast<const uint16_t*>(w.scales) + group * w.n_padded + column_block * 64 + thread * 8);
  else if (thread == 0)
    cp_async<4>(shared_address(to), static_cast<const float*>(w.scales) + group * ((w.n_padded + 127) / 128) + column_block / 2);
}

CUL_DEVICE_FN uint32_t word_of(const uint4& words, int i) { return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w; }

// The scales of a lane's 8 columns in one group.
struct LaneScales {
  DType dtype = DType::f16;
  uint4 bits{};

  CUL_DEVICE_FN void load(const unsigned char* from, DType type, int lane) {
    dtype = type;
    if (type == DType::f32)
      bits.x = *reinterpret_cast<const uint32_t*>(from);
    else
      bits = *reinterpret_cast<const uint4*>(from + lane / 4 * 16);
  }
  CUL_DEVICE_FN float operator[](int column) const {
    if (dtype == DType::f32) return numeric::bits_float(bits.x);
    const auto half = static_cast<uint16_t>(word_of(bits, column / 2) >> (column % 2 * 16));
    return dtype == DType::bf16 ? to_float(bfloat16_t{half}) : to_float(half_t{half});
  }
};

template <class T, class Format>
struct GroupedWeights : PackedSource {
  using Element = T;
  // A slice of 64 columns x 64 k in shared memory, with the scales and zeros of its (up to two) groups.
  static constexpr int kScalesAt = 64 * 64 * Format::kBits / 8, kZerosAt = kScalesAt + 2 * 64 * 2;
  static constexpr int kSliceBytes = kZerosAt + (Format::kZeros ? 2 * 64 : 0);

  template <int kThreads, bool kReadOnce>
  CUL_DEVICE_FN void fetch(unsigned char* slice, int64_t column_block, int index, int thread) const {
    fetch_packed<kScalesAt, kThreads, kReadOnce>(slice, *this, column_block, index, thread);
    const int halves = group_shift == 5 ? 2 : 1;  // groups of 32: two in a slice
    const auto group_of = [&](int half) { return (int64_t{index} * kSliceRows + half * 32) >> group_shift; };
    if (thread < 8 * halves)
      fetch_scales(slice + kScalesAt + thread / 8 * 128, *this, column_block, group_of(thread / 8), thread % 8);
    else if (Format::kZeros && zeros && thread >= 16 && thread < 16 + 4 * halves)
      cp_async_l2(shared_address(slice + kZerosAt + (thread - 16) * 16),
                  zeros + group_of((thread - 16) / 4) * n_padded + column_block * 64 + thread % 4 * 16);
  }

  template <int kTokenTiles>
  struct Accumulator {
    int lane;
    int64_t group = -1;
    LaneScales scales;
    Format format;
    float sum[4][kTokenTiles][4] = {};    // of the group, unscaled
    float total[4][kTokenTiles][4] = {};  // of the groups before

    CUL_DEVICE_FN explicit Accumulator(int lane) : lane(lane) {}

    CUL_DEVICE_FN void finish() {
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        const float low = scales[2 * w] * Format::kScale, high = scales[2 * w + 1] * Format::kScale;
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            total[w][i][j] = fmaf(j < 2 ? low : high, sum[w][i][j], total[w][i][j]);
            sum[w][i][j] = 0;
          }
      }
    }

    // 16 k of a slice.
    CUL_DEVICE_FN void multiply(const GroupedWeights& weights, const unsigned char* slice, int index, int step,
                                const uint32_t (&b)[kTokenTiles][2]) {
      if (step % 2 == 0) {
        const int64_t now = (int64_t{index} * kSliceRows + step * 16) >> weights.group_shift;
        if (now != group) {
          if (group >= 0) finish();
          const int half = weights.group_shift == 5 ? step / 2 : 0;
          scales.load(slice + kScalesAt + half * 128, weights.scale_dtype, lane);
          if constexpr (Format::kZeros)
            format.set_zeros(weights.zeros ? *reinterpret_cast<const uint2*>(slice + kZerosAt + half * 64 + lane / 4 * 8)
                                           : make_uint2(0x80808080u, 0x80808080u));
        }
        group = now;
      }
      format.load(slice, step, lane);
      if constexpr (requires { format.multiply(step, b, sum); }) {
        format.multiply(step, b, sum);  // another instruction's product
      } else {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          uint32_t a[4];
          format.dequantize(w, a);
#pragma unroll
          for (int i = 0; i < kTokenTiles; ++i) mma_m16n8k16<T>(sum[w][i], a, b[i][0], b[i][1]);
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

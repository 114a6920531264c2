// Expert matrices as operand A of the tile kernel, from the plain layout: no copy of the weights is packed.
//
// The order of k within a product is free where both operands have it. Half and f8 x f8 slices are read by ldmatrix. Int4 and f8 weights for
// half tokens are read in runs: of 32 k, lane 4g + t has the 8 k from 8t on, 4 bytes of nibbles or 8 bytes, and the same 8 halves of its
// tokens (one 16-byte read); the first four are the k 2t, 2t + 1, 2t + 8, 2t + 9 of one mma, the others of the next.
//
// q - z is exact in a half and e4m3 is, too, so products are exact in f32; a scale multiplies its group's f32 sum once.
#pragma once
#include "device/bits.h"
#include "device/mma.h"
#include "device/warp.h"
#include "ops/gemm/tile/half_weights.cuh"
#include "ops/gemm/tile/int4_dequantize.cuh"
#include "ops/moe/expert_source.cuh"

namespace culebra::CUL_DEVICE_NS {

template <class T>
struct ExpertHalf : ExpertSource {
  using Element = T;
  static constexpr int kSliceBytes = HalfWeights<T>::kSliceBytes;

  template <int kThreads, bool kReadOnce>
  CUL_DEVICE_FN void fetch(unsigned char* slice, int64_t block, int index, int thread) const {
    fetch_slice<128, kThreads, kReadOnce>(slice, block, index, thread, HalfWeights<T>::chunk_at);
  }

  template <int kTokenTiles>
  struct Accumulator : HalfWeights<T>::template Accumulator<kTokenTiles> {
    using Base = typename HalfWeights<T>::template Accumulator<kTokenTiles>;
    CUL_DEVICE_FN explicit Accumulator(int lane) : Base(lane) {}
    CUL_DEVICE_FN void multiply(const ExpertHalf&, const unsigned char* slice, int index, int step, const uint32_t (&b)[kTokenTiles][2]) {
      Base::multiply(HalfWeights<T>{}, slice, index, step, b);
    }
  };
};

inline constexpr int kExpertAndOr = (0xf0 & 0xcc) | 0xaa;  // of lop3

// Four bits: q - z. A slice has 32 bytes of each row; the rows that one read touches, 8 apart, lie side by side.
template <class T>
struct Int4Runs {
  static constexpr int kSliceBytes = 64 * 32;
  static constexpr float kScale = 1;

  uint32_t bias[8];  // of each column, twice: 1024 + z (128 + z)

  CUL_DEVICE_FN static int place(int row, int chunk) { return (row % 8 * 2 + chunk) * 8 + row / 8; }
  CUL_DEVICE_FN void set_zero(int column, int zero) { bias[column] = int4_magic<T> + static_cast<uint32_t>(zero) * 0x00010001u; }
  CUL_DEVICE_FN static float scale(const ExpertSource& w, int64_t row, int64_t group) { return w.row_scale(row, group); }

  // A column's run of 8 k in half `half` of the slice.
  struct Run {
    uint32_t word;
  };
  CUL_DEVICE_FN static Run load(const unsigned char* slice, int column, int half, int lane) {
    return {*reinterpret_cast<const uint32_t*>(slice + place(lane / 4 * 8 + column, half) * 16 + lane % 4 * 4)};
  }
  // Its k 4 part .. 4 part + 1, and the two after them.
  CUL_DEVICE_FN void dequantize(Run run, int column, int part, uint32_t& first, uint32_t& second) const {
    const uint32_t upper = run.word >> 4, selector = static_cast<uint32_t>(part) * 0x0202u;  // byte 2 part, of both
    first = hsub2<T>(lop3<kExpertAndOr>(pairs(run.word, upper, 0x0400u + selector), 0x000f000fu, int4_magic<T>), bias[column]);
    second = hsub2<T>(lop3<kExpertAndOr>(pairs(run.word, upper, 0x0501u + selector), 0x000f000fu, int4_magic<T>), bias[column]);
  }
  CUL_DEVICE_FN static uint32_t pairs(uint32_t word, uint32_t upper, uint32_t selector) { return prmt(word, upper, selector); }
};

// e4m3 for half tokens: its exponent and mantissa bits where T has its own (byte_formats.cuh: f16 is 2^8 too small, bf16 is put right).
template <class T>
struct F8Runs {
  static constexpr int kSliceBytes = 64 * 64;
  static constexpr float kScale = numeric::is_half<T> ? 256.0f : 1.0f;

  CUL_DEVICE_FN static int place(int row, int chunk) { return ((row % 8 * 2 + chunk / 2) * 8 + row / 8) * 2 + chunk % 2; }
  CUL_DEVICE_FN void set_zero(int, int) {}
  CUL_DEVICE_FN static float scale(const ExpertSource& w, int64_t row, int64_t group) { return w.block_scale(row, group); }

  struct Run {
    uint2 words;
  };
  CUL_DEVICE_FN static Run load(const unsigned char* slice, int column, int half, int lane) {
    return {*reinterpret_cast<const uint2*>(slice + place(lane / 4 * 8 + column, half * 2) * 16 + lane % 4 * 8)};
  }
  CUL_DEVICE_FN static void dequantize(Run run, int, int part, uint32_t& first, uint32_t& second) {
    const uint32_t word = part ? run.words.y : run.words.x;
    first = halves(prmt(word, 0, 0x1404u)), second = halves(prmt(word, 0, 0x3424u));
  }
  // Two bytes, each the upper one of a half.
  CUL_DEVICE_FN static uint32_t halves(uint32_t x) {
    constexpr int kDown = numeric::is_half<T> ? 1 : 4;
    constexpr uint32_t kMagnitude = numeric::is_half<T> ? 0x3f803f80u : 0x07f007f0u;
    const uint32_t value = lop3<kExpertAndOr>(x, 0x80008000u, x >> kDown & kMagnitude);
    return numeric::is_half<T> ? value : hmul2<T>(value, 0x7b807b80u);  // 2^120
  }
};

template <class T, class Format>
struct ExpertRuns : ExpertSource {
  using Element = T;
  static constexpr bool kRuns = true;
  static constexpr int kSliceBytes = Format::kSliceBytes;

  template <int kThreads, bool kReadOnce>
  CUL_DEVICE_FN void fetch(unsigned char* slice, int64_t block, int index, int thread) const {
    fetch_slice<kSliceBytes / 64, kThreads, kReadOnce>(slice, block, index, thread, Format::place);
  }

  // A lane reads scale and zero point of two of its eight columns, a group ahead, and has the others' from its neighbours.
  template <int kTokenTiles>
  struct Accumulator {
    int lane;
    int64_t first = 0, group = -1;  // the lane's first column; k's present group
    float scale[8] = {}, next_scale[2] = {};
    int next_zero[2] = {};
    Format format;
    typename Format::Run runs[8];
    float sum[4][kTokenTiles][4] = {};    // of the group, unscaled
    float total[4][kTokenTiles][4] = {};  // of the groups before

    CUL_DEVICE_FN explicit Accumulator(int lane) : lane(lane) {}

    template <class Problem>
    CUL_DEVICE_FN void start(const Problem&, const ExpertRuns& weights, int64_t block, int) {
      first = weights.first_row(block) + lane / 4 * 8;
      read_group(weights, 0);
    }
    CUL_DEVICE_FN void read_group(const ExpertRuns& weights, int64_t of) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int64_t row = first + lane % 4 * 2 + i;
        next_scale[i] = Format::scale(weights, row, of);
        next_zero[i] = weights.row_zero(row, of);
      }
    }
    CUL_DEVICE_FN void begin_group(const ExpertRuns& weights, int64_t now) {
      finish();
      group = now;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int source = (lane & ~3) + i / 2;
        scale[i] = __shfl_sync(kFullMask, next_scale[i % 2], source) * Format::kScale;
        format.set_zero(i, __shfl_sync(kFullMask, next_zero[i % 2], source));
      }
      read_group(weights, now + 1);
    }
    CUL_DEVICE_FN void finish() {
#pragma unroll
      for (int w = 0; w < 4; ++w)
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            total[w][i][j] = fmaf(scale[2 * w + j / 2], sum[w][i][j], total[w][i][j]);
            sum[w][i][j] = 0;
          }
    }

    // 16 k of a slice.
    CUL_DEVICE_FN void multiply(const ExpertRuns& weights, const unsigned char* slice, int index, int step, const uint32_t (&b)[kTokenTiles][2]) {
      if (step % 2 == 0) {
        const int64_t now = (int64_t{index} * kSliceRows + step * 16) >> weights.group_shift;
        if (now != group) begin_group(weights, now);
#pragma unroll
        for (int column = 0; column < 8; ++column) runs[column] = Format::load(slice, column, step / 2, lane);
      }
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        uint32_t a[4];
#pragma unroll
        for (int r = 0; r < 2; ++r) format.dequantize(runs[2 * w + r], 2 * w + r, step % 2, a[r], a[2 + r]);
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i) mma_m16n8k16<T>(sum[w][i], a, b[i][0], b[i][1]);
      }
    }

    // Columns 4 half .. 4 half + 3 of the lane's eight, for token `odd` of its two in token tile i.
    CUL_DEVICE_FN float4 columns(int i, int odd, int half) const {
      return make_float4(total[2 * half][i][odd], total[2 * half][i][odd + 2], total[2 * half + 1][i][odd], total[2 * half + 1][i][odd + 2]);
    }
  };
};

template <class T>
using ExpertInt4 = ExpertRuns<T, Int4Runs<T>>;
template <class T>
using ExpertF8 = ExpertRuns<T, F8Runs<T>>;

// e4m3 weights for e4m3 tokens, both turned into f16 in registers: the tensor cores keep every bit of their products' sums. A slice is one
// block of 128 k.
struct ExpertF8Bytes : ExpertSource {
  using Element = uint8_t;
  static constexpr int kSliceBytes = 64 * 128;

  template <int kThreads, bool kReadOnce>
  CUL_DEVICE_FN void fetch(unsigned char* slice, int64_t block, int index, int thread) const {
    fetch_slice<128, kThreads, kReadOnce>(slice, block, index, thread, HalfWeights<half_t>::chunk_at);
  }

  template <int kTokenTiles>
  struct Accumulator {
    int lane;
    int64_t first = 0;               // the lane's first column
    const float* own_row = nullptr;  // scales of token `lane` of the warp's
    float sum[4][kTokenTiles][4] = {};
    float total[4][kTokenTiles][4] = {};
    static_assert(kTokenTiles <= 4);

    CUL_DEVICE_FN explicit Accumulator(int lane) : lane(lane) {}
    CUL_DEVICE_FN void finish() {}

    template <class Problem>
    CUL_DEVICE_FN void start(const Problem& p, const ExpertF8Bytes& weights, int64_t block, int warp_token) {
      first = weights.first_row(block) + lane / 4 * 8;
      own_row = lane < 8 * kTokenTiles ? p.token_scales(warp_token + lane) : nullptr;
    }

    // 32 k: two products of 16.
    CUL_DEVICE_FN void multiply(const ExpertF8Bytes& weights, const unsigned char* slice, int index, int step, const uint32_t (&b)[kTokenTiles][2]) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t tokens[kTokenTiles][2];
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i) halves(b[i][half], tokens[i][0], tokens[i][1]);
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          uint32_t bytes[2], a[4];
          const int row = lane % 8 * 8 + 2 * w + lane / 8 % 2;
          ldmatrix_x2(bytes, shared_address(slice + HalfWeights<half_t>::chunk_at(row, step * 2 + half) * 16));
          halves(bytes[0], a[0], a[2]);
          halves(bytes[1], a[1], a[3]);
#pragma unroll
          for (int i = 0; i < kTokenTiles; ++i) mma_m16n8k16<half_t>(sum[w][i], a, tokens[i][0], tokens[i][1]);
        }
      }
      if (step == 3) end_block(weights, index);
    }

    CUL_DEVICE_FN void end_block(const ExpertF8Bytes& weights, int block) {
      const float own = own_row ? own_row[block] * (F8Runs<half_t>::kScale * F8Runs<half_t>::kScale) : 0.0f;
      // The lane's columns may belong to two blocks of 128: those from `edge` on to the second.
      const int edge = 128 - static_cast<int>(first % 128);
      const float before = weights.block_scale(first, block), behind = weights.block_scale(min(first + 7, weights.n - 1), block);
#pragma unroll
      for (int i = 0; i < kTokenTiles; ++i)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          const float token = __shfl_sync(kFullMask, own, i * 8 + lane % 4 * 2 + odd);
#pragma unroll
          for (int w = 0; w < 4; ++w)
#pragma unroll
            for (int high = 0; high < 2; ++high) {
              float& s = sum[w][i][2 * high + odd];
              total[w][i][2 * high + odd] = fmaf(s, (2 * w + high < edge ? before : behind) * token, total[w][i][2 * high + odd]);
              s = 0;
            }
        }
    }
    // Four bytes, k 4t to 4t + 3 of a row, as two pairs.
    CUL_DEVICE_FN static void halves(uint32_t bytes, uint32_t& low, uint32_t& high) {
      low = F8Runs<half_t>::halves(prmt(bytes, 0, 0x1404u)), high = F8Runs<half_t>::halves(prmt(bytes, 0, 0x3424u));
    }

    CUL_DEVICE_FN float4 columns(int i, int odd, int half) const {
      return make_float4(total[2 * half][i][odd], total[2 * half][i][odd + 2], total[2 * half + 1][i][odd], total[2 * half + 1][i][odd + 2]);
    }
  };
};

}  // namespace culebra::CUL_DEVICE_NS

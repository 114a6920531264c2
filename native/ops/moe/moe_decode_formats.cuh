// The three storages of experts as operands of m16n8k16: from 64 bytes of each of 32 rows in shared memory to products with eight tokens.
//
// A stage: 32 rows of 64 bytes, in chunks of 16; chunk q of row r stands at q ^ (r / 2 % 4), so that the eight rows that a quarter of a
// fragment needs lie in different banks. Behind them what the storage's scales need. The order of k within a product is free as long as
// both operands have it: where a weight's word unpacks into pairs that are not neighbours, the tokens' rows are stored in that order.
#pragma once
#include "device/bits.h"
#include "device/mma.h"
#include "device/vector.h"
#include "ops/gemm/tile/int4_dequantize.cuh"
#include "ops/moe/moe_decode.h"

namespace culebra::CUL_DEVICE_NS {

// Products of a unit's 32 rows in two tiles of 16, by m16n8k16's picture.
struct DecodeSums {
  float of[2][4];

  CUL_DEVICE_FN void clear() {
#pragma unroll
    for (int i = 0; i < 8; ++i) of[i / 4][i % 4] = 0;
  }
  // this += scale of the row times `part`; the lane's rows are g, g + 8 of each tile, scales those of rows 0..31.
  CUL_DEVICE_FN void add(const DecodeSums& part, const float* scales, int g, float factor) {
#pragma unroll
    for (int tile = 0; tile < 2; ++tile)
#pragma unroll
      for (int i = 0; i < 4; ++i) of[tile][i] = fmaf(part.of[tile][i], scales[16 * tile + i / 2 * 8 + g] * factor, of[tile][i]);
  }
};

static_assert(MoeDecodeShape::kStepBytes == 64);
CUL_DEVICE_FN int stage_chunk(int row, int chunk) { return (row << 6) + ((chunk ^ (row >> 1 & 3)) << 4); }

// Word `t` of a chunk of row g + 8 i.
CUL_DEVICE_FN uint32_t stage_word(const unsigned char* stage, int g, int i, int chunk, int t) {
  return *reinterpret_cast<const uint32_t*>(stage + stage_chunk(g, chunk) + 512 * i + 4 * t);
}

template <class T, int kStorage>
struct DecodeFormat;

// Weights as they are; tokens in order.
template <class T>
struct DecodeFormat<T, CUL_EXPERTS_HALF> {
  static constexpr int kBits = 16, kStepColumns = 32;

  CUL_DEVICE_FN static int place(int k) { return k; }

  CUL_DEVICE_FN static void multiply(DecodeSums& sums, const unsigned char* stage, const T* token, int, int lane) {
    const int t = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t b0 = *reinterpret_cast<const uint32_t*>(token + 16 * half + 2 * t);
      const uint32_t b1 = *reinterpret_cast<const uint32_t*>(token + 16 * half + 8 + 2 * t);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        uint32_t a[4];
        ldmatrix_x4(a, shared_address(stage + stage_chunk(16 * tile + lane % 16, 2 * half + lane / 16)));
        mma_m16n8k16<T>(sums.of[tile], a, b0, b1);
      }
    }
  }
};

// A word has k, .. k + 3. The bytes of e4m3 with exponent and mantissa moved to where T has its own are the value times 2^(7 - T's bias): f16's
// factor goes to the scale, bf16's 2^120 into the weight, whose products would leave f32's range. Byte pairs (0, 2), (1, 3).
template <class T>
struct DecodeFormat<T, CUL_EXPERTS_F8> {
  static constexpr int kBits = 8, kStepColumns = 64;

  CUL_DEVICE_FN static int place(int k) { return (k & ~3) | (k & 1) << 1 | (k & 2) >> 1; }

  CUL_DEVICE_FN static void convert(uint32_t q, uint32_t& even, uint32_t& odd) {
    constexpr int kAndOr = (0xf0 & 0xcc) | 0xaa, kDown = numeric::is_half<T> ? 1 : 4;
    constexpr uint32_t kMagnitude = numeric::is_half<T> ? 0x3f803f80u : 0x07f007f0u;
    even = lop3<kAndOr>(q << 8, 0x80008000u, q << (8 - kDown) & kMagnitude);
    odd = lop3<kAndOr>(q, 0x80008000u, q >> kDown & kMagnitude);
    if constexpr (!numeric::is_half<T>) {
      even = hmul2<T>(even, 0x7b807b80u);
      odd = hmul2<T>(odd, 0x7b807b80u);
    }
  }

  CUL_DEVICE_FN static void multiply(DecodeSums& sums, const unsigned char* stage, const T* token, int, int lane) {
    const int g = lane / 4, t = lane % 4;
    DecodeSums part;
    part.clear();
#pragma unroll
    for (int chunk = 0; chunk < 4; ++chunk) {
      const uint2 b = *reinterpret_cast<const uint2*>(token + 16 * chunk + 4 * t);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        uint32_t a[4];
        convert(stage_word(stage, g, 2 * tile, chunk, t), a[0], a[2]);
        convert(stage_word(stage, g, 2 * tile + 1, chunk, t), a[1], a[3]);
        mma_m16n8k16<T>(part.of[tile], a, b.x, b.y);
      }
    }
    sums.add(part, reinterpret_cast<const float*>(stage + 2048), g, numeric::is_half<T> ? 256.0f : 1.0f);
  }
};

// A word has k, .. k + 7, which come out as pairs (0, 4), (1, 5), (2, 6), (3, 7). Behind the rows, for each group of the step: 32 scales,
// then 32 words of 1024 + z (bf16: 128 + z) twice.
template <class T>
struct DecodeFormat<T, CUL_EXPERTS_INT4> {
  static constexpr int kBits = 4, kStepColumns = 128;

  CUL_DEVICE_FN static int place(int k) { return (k & ~7) | (k & 3) << 1 | (k & 4) >> 2; }

  CUL_DEVICE_FN static void multiply(DecodeSums& sums, const unsigned char* stage, const T* token, int groups, int lane) {
    const int g = lane / 4, t = lane % 4, chunks = 4 / groups;
    const auto* const scales = reinterpret_cast<const float*>(stage + 2048);
    const auto* const biases = reinterpret_cast<const uint32_t*>(scales + 32 * groups);
    DecodeSums part;
    part.clear();
    uint32_t bias[4];
#pragma unroll
    for (int chunk = 0; chunk < 4; ++chunk) {
      const int group = chunk / chunks;
      if (chunk % chunks == 0) {
#pragma unroll
        for (int i = 0; i < 4; ++i) bias[i] = biases[32 * group + g + 8 * i];
      }
      const uint4 b = *reinterpret_cast<const uint4*>(token + 32 * chunk + 8 * t);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        uint32_t upper[4], lower[4];  // pairs 0, 2, 1, 3 of row g and of row g + 8
        dequantize<T>(stage_word(stage, g, 2 * tile, chunk, t), bias[2 * tile], bias[2 * tile], upper);
        dequantize<T>(stage_word(stage, g, 2 * tile + 1, chunk, t), bias[2 * tile + 1], bias[2 * tile + 1], lower);
        const uint32_t first[4] = {upper[0], lower[0], upper[2], lower[2]}, second[4] = {upper[1], lower[1], upper[3], lower[3]};
        mma_m16n8k16<T>(part.of[tile], first, b.x, b.y);
        mma_m16n8k16<T>(part.of[tile], second, b.z, b.w);
      }
      if ((chunk + 1) % chunks == 0) {
        sums.add(part, scales + 32 * group, g, 1.0f);
        part.clear();
      }
    }
  }
};

}  // namespace culebra::CUL_DEVICE_NS

// How packed words become operand A of m16n8k16, T = half_t or bfloat16_t: a[r] is the pair of k in row r of the tile w (column 2w + r of
// the lane's eight), a[2 + r] the one 8 k further. Layouts: marlin_layout.h.
//
// f16 holds 1024 + q in one OR; subtracting 1024 + z leaves q - z exactly. bf16's mantissa has 7 bits: 8-bit q are taken apart.
#pragma once
#include "ops/gemm/tile/grouped_weights.cuh"

namespace culebra::CUL_DEVICE_NS {

inline constexpr int kAndOr = (0xf0 & 0xcc) | 0xaa, kAndXor = (0xf0 & 0xcc) ^ 0xaa;  // tables of lop3

// The words of 16 k in ByteFragments.
struct ByteWords {
  uint4 low, high;

  CUL_DEVICE_FN void load(const unsigned char* slice, int step, int lane) {
    low = *reinterpret_cast<const uint4*>(slice + (step * 64 + lane) * 16);
    high = *reinterpret_cast<const uint4*>(slice + (step * 64 + 32 + lane) * 16);
  }
  CUL_DEVICE_FN uint32_t word(int column) const { return column < 4 ? word_of(low, column) : word_of(high, column - 4); }
};

template <class T>
struct Int8Format : ByteWords {
  static constexpr int kBits = 8;
  static constexpr bool kZeros = true;
  static constexpr float kScale = 1;

  uint32_t offset[8];  // of each column, twice: f16 1024 + z, bf16 z - 128

  CUL_DEVICE_FN void set_zeros(uint2 z) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t zero = (i < 4 ? z.x : z.y) >> (i % 4 * 8) & 0xffu;
      if constexpr (numeric::is_half<T>) {
        offset[i] = 0x64006400u | zero * 0x00010001u;
      } else {
        const float centred = static_cast<float>(static_cast<int>(zero) - 128);
        offset[i] = pack2<T>(centred, centred);
      }
    }
  }

  CUL_DEVICE_FN void dequantize(int w, uint32_t (&a)[4]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t q = word(2 * w + r);
      if constexpr (numeric::is_half<T>) {
        a[r] = hsub2<T>(prmt(q, 0x64646464u, 0x4240), offset[2 * w + r]);
        a[2 + r] = hsub2<T>(prmt(q, 0x64646464u, 0x4341), offset[2 * w + r]);
      } else {
        // 128 + the low seven bits, less 128 where bit 7 is set and 256 where it is not: q - 128.
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint32_t bytes = q >> (8 * half);
          const uint32_t centred = hsub2<T>(lop3<kAndOr>(bytes, 0x007f007fu, 0x43004300u), lop3<kAndXor>(bytes, 0x00800080u, 0x43804380u));
          a[2 * half + r] = hsub2<T>(centred, offset[2 * w + r]);
        }
      }
    }
  }
};

// e4m3 with its exponent and mantissa bits where T has its own is the value times 2^(7 - bias of T), subnormals included. f16: the scale
// takes 2^8. bf16: products with 2^-120 would leave f32's range, so the weight takes it. NaN's code counts as 480, as its bits say.
template <class T>
struct F8Format : ByteWords {
  static constexpr int kBits = 8;
  static constexpr bool kZeros = false;
  static constexpr float kScale = numeric::is_half<T> ? 256.0f : 1.0f;

  CUL_DEVICE_FN void dequantize(int w, uint32_t (&a)[4]) const {
    constexpr int kDown = numeric::is_half<T> ? 1 : 4;
    constexpr uint32_t kMagnitude = numeric::is_half<T> ? 0x3f803f80u : 0x07f007f0u;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t q = word(2 * w + r);
      a[r] = lop3<kAndOr>(q << 8, 0x80008000u, q << (8 - kDown) & kMagnitude);
      a[2 + r] = lop3<kAndOr>(q, 0x80008000u, q >> kDown & kMagnitude);
      if constexpr (!numeric::is_half<T>) {
        a[r] = hmul2<T>(a[r], 0x7b807b80u);  // 2^120
        a[2 + r] = hmul2<T>(a[2 + r], 0x7b807b80u);
      }
    }
  }
};

template <class T>
struct Int6Format {
  static constexpr int kBits = 6;
  static constexpr bool kZeros = false;
  static constexpr float kScale = 1;

  uint4 low, high;  // of 16 k: four bits of each weight; of 32 k: two

  CUL_DEVICE_FN void load(const unsigned char* slice, int step, int lane) {
    low = *reinterpret_cast<const uint4*>(slice + (step * 32 + lane) * 16);
    const uint4 both = *reinterpret_cast<const uint4*>(slice + 2048 + (step / 2 * 32 + lane) * 16);
    high = step % 2 ? make_uint4(both.z, both.w, 0, 0) : both;
  }

  // Left by `bits`, or right where negative.
  CUL_DEVICE_FN static uint32_t shift(uint32_t x, int bits) { return bits >= 0 ? x << bits : x >> -bits; }

  CUL_DEVICE_FN void dequantize(int w, uint32_t (&a)[4]) const {
    constexpr uint32_t kMagic = numeric::is_half<T> ? 0x64006400u : 0x43004300u;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t four = word_of(low, w) >> (8 * r), two = word_of(high, w / 2);
      const int up = (w % 2 ? -4 : 4) - 2 * r;  // the two bits of the first pair then stand in bits 4 and 5
      const uint32_t first = lop3<kAndOr>(shift(two, up), 0x00300030u, lop3<kAndOr>(four, 0x000f000fu, kMagic));
      if constexpr (numeric::is_half<T>) {
        a[r] = hsub2<T>(first, 0x64206420u);  // 1024 + 32
        // The second pair stands 4 bits up: sixteenfold, which one FMA brings down.
        const uint32_t second = lop3<kAndOr>(shift(two, up), 0x03000300u, lop3<kAndOr>(four, 0x00f000f0u, kMagic));
        a[2 + r] = hfma2<T>(second, 0x2c002c00u, 0xd600d600u);  // / 16 - 96
      } else {
        a[r] = hsub2<T>(first, 0x43204320u);  // 128 + 32
        const uint32_t second = lop3<kAndOr>(shift(two, up - 4), 0x00300030u, lop3<kAndOr>(four >> 4, 0x000f000fu, kMagic));
        a[2 + r] = hsub2<T>(second, 0x43204320u);
      }
    }
  }
};

}  // namespace culebra::CUL_DEVICE_NS

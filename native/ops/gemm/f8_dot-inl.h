// Dot products of e4m3 values on the cpu: pairs of bf16, which holds every e4m3 value, summed in f32. What the products
// with 8-bit float activations share.
#include <type_traits>

#include "device/numeric.h"

#if defined(CULEBRA_OPS_GEMM_F8_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_OPS_GEMM_F8_DOT_INL_H_
#undef CULEBRA_OPS_GEMM_F8_DOT_INL_H_
#else
#define CULEBRA_OPS_GEMM_F8_DOT_INL_H_
#endif

#include "backends/cpu/vector-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3_DL
HWY_PUSH_ATTRIBUTES("avx512bf16")  // used where the processor has it: native_bf16()
#endif
namespace culebra::cpu::HWY_NAMESPACE {

// Values that one step expands, from as many bytes: a vector.
inline constexpr int kF8Step = 4 * kLanes;

#if HWY_TARGET == HWY_AVX3_DL
inline bool native_bf16() { return __builtin_cpu_supports("avx512bf16"); }
#else
inline bool native_bf16() { return false; }
#endif

// Each 32-bit lane is a pair of bf16. sum + w.even x.even + w.odd x.odd
template <bool kNative>
HWY_INLINE F32 dot_bf16(F32 sum, I32 w, I32 x) {
#if HWY_TARGET == HWY_AVX3_DL
  if constexpr (kNative)
    return F32{_mm512_dpbf16_ps(sum.raw, reinterpret_cast<__m512bh>(w.raw), reinterpret_cast<__m512bh>(x.raw))};
#endif
  const F32Tag d;
  const I32 high = hn::Set(I32Tag(), static_cast<int32_t>(0xffff0000u));
  const auto even = [&](I32 v) HWY_ATTR { return hn::BitCast(d, hn::ShiftLeft<16>(v)); };
  const auto odd = [&](I32 v) HWY_ATTR { return hn::BitCast(d, hn::And(v, high)); };
  return hn::MulAdd(odd(w), odd(x), hn::MulAdd(even(w), even(x), sum));
}

struct F8Pairs {
  I32 v[2];
};

// kF8Step values as bf16, in an order of their own: products take both operands through here.
HWY_INLINE F8Pairs expand_f8(const uint8_t* from) {
  const hn::Repartition<uint8_t, I32Tag> d8;
  const auto bytes = hn::LoadU(d8, from);
#if HWY_TARGET == HWY_AVX3_DL
  // The two bytes of a bf16 by the 7 bits of the magnitude, then the sign.
  struct Tables {
    alignas(64) uint8_t high[128], low[128];
    constexpr Tables() : high(), low() {
      for (int i = 0; i < 128; ++i) {
        int mantissa = i & 7, exponent = (i >> 3) + 120;
        if (i >> 3 == 0) {
          exponent = mantissa ? 121 : 0;
          while (mantissa && !(mantissa & 8)) mantissa <<= 1, --exponent;
        }
        const int bits = i == 127 ? 0x7fc0 : exponent << 7 | (mantissa & 7) << 4;
        high[i] = static_cast<uint8_t>(bits >> 8);
        low[i] = static_cast<uint8_t>(bits);
      }
    }
  };
  static constexpr Tables kTables;
  const __m512i index = bytes.raw;
  const auto look_up = [&](const uint8_t* table) HWY_ATTR {
    return _mm512_permutex2var_epi8(_mm512_load_si512(table), index, _mm512_load_si512(table + 64));
  };
  const __m512i high = _mm512_or_si512(look_up(kTables.high), _mm512_and_si512(index, _mm512_set1_epi8(-128)));
  const __m512i low = look_up(kTables.low);
  return {{I32{_mm512_unpacklo_epi8(low, high)}, I32{_mm512_unpackhi_epi8(low, high)}}};
#else
  const F32Tag d;
  const I32Tag di;
  const I32 words = hn::BitCast(di, bytes);
  // Byte i of each word. Read as a float whose exponent is 120 too small; the multiplication by 2^120 is exact and renormalises.
  const auto value = [&](auto shift) HWY_ATTR {
    const I32 byte = hn::ShiftRight<shift>(words), magnitude = hn::And(byte, hn::Set(di, 0x7f));
    const I32 number = hn::BitCast(di, hn::Mul(hn::BitCast(d, hn::ShiftLeft<20>(magnitude)), hn::Set(d, 0x1p120f)));
    const I32 bits = hn::IfThenElse(hn::Eq(magnitude, hn::Set(di, 0x7f)), hn::Set(di, 0x7fc00000), number);
    return hn::Or(bits, hn::ShiftLeft<24>(hn::And(byte, hn::Set(di, 0x80))));
  };
  const auto pair = [&](I32 even, I32 odd) HWY_ATTR {
    const auto low = hn::ShiftRight<16>(hn::BitCast(hn::RebindToUnsigned<I32Tag>(), even));
    return hn::Or(hn::BitCast(di, low), odd);
  };
  return {{pair(value(std::integral_constant<int, 0>()), value(std::integral_constant<int, 8>())),
           pair(value(std::integral_constant<int, 16>()), value(std::integral_constant<int, 24>()))}};
#endif
}

}  // namespace culebra::cpu::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3_DL
HWY_POP_ATTRIBUTES
#endif
HWY_AFTER_NAMESPACE();
#endif

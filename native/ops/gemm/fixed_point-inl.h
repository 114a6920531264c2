// Fixed-point activations and integer dot products: what the cpu products of integer weights share (CPU.md).
#include "device/numeric.h"

#if defined(CULEBRA_OPS_GEMM_FIXED_POINT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_OPS_GEMM_FIXED_POINT_INL_H_
#undef CULEBRA_OPS_GEMM_FIXED_POINT_INL_H_
#else
#define CULEBRA_OPS_GEMM_FIXED_POINT_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "backends/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3_DL
HWY_PUSH_ATTRIBUTES("avx512vnni")  // Highway asks the processor for it, but not the compiler
#endif
namespace culebra::cpu::HWY_NAMESPACE {

// q = x / scale, |q| <= 32767, for `count` values, and the sum of q. count is a multiple of 32.
template <class Half>
void quantize_block(const Half* x, int64_t count, int16_t* q, float* scale, int32_t* sum) {
  const F32Tag df;
  const I32Tag di;
  const I16Tag d16;
  // Halves of one sign are ordered as their bits are, with infinity and NaN on top.
  I16 top = hn::Zero(d16);
  for (int64_t i = 0; i < count; i += 2 * kLanes)
    top = hn::Max(top, hn::And(hn::LoadU(d16, reinterpret_cast<const int16_t*>(x + i)), hn::Set(d16, 0x7fff)));
  const I32 pairs = hn::BitCast(di, top);
  const I32 larger = hn::Max(hn::ShiftRight<16>(pairs), hn::And(pairs, hn::Set(di, 0xffff)));
  const float largest = to_float(Half{static_cast<uint16_t>(hn::GetLane(hn::MaxOfLanes(di, larger)))});
  if (!std::isfinite(largest)) {
    // NaN, or infinities against nothing: inf * (q - z) then has the sign, or the NaN for a weight of 0, that IEEE gives.
    *scale = largest;
    *sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float value = to_float(x[i]);
      q[i] = std::isinf(value) ? (value > 0 ? 1 : -1) : 0;
      *sum += q[i];
    }
    return;
  }
  // The bound keeps 1 / scale finite for the smallest bf16 values.
  const float range = std::max(largest, 0x1p-100f);
  const F32 inverse = hn::Set(df, 32767.0f / range);
  const hn::Rebind<int16_t, F32Tag> d16_half;
  I32 sums = hn::Zero(di);
  for (int64_t i = 0; i < count; i += kLanes) {
    const I32 rounded = hn::NearestInt(hn::Mul(load_f32(df, x + i), inverse));
    sums = hn::Add(sums, rounded);
    hn::StoreU(hn::DemoteTo(d16_half, rounded), d16_half, q + i);
  }
  *scale = range / 32767.0f;
  *sum = hn::GetLane(hn::SumOfLanes(di, sums));
}

// sum + w.even * x.even + w.odd * x.odd in each 32-bit lane.
HWY_INLINE I32 dot_pairs(I32 sum, I16 w, I16 x) {
#if HWY_TARGET == HWY_AVX3_DL
  return I32{_mm512_dpwssd_epi32(sum.raw, w.raw, x.raw)};
#elif HWY_ARCH_X86
  I32 unused = hn::Zero(I32Tag());
  return hn::ReorderWidenMulAccumulate(I32Tag(), w, x, sum, unused);
#else
  const I32Tag d;
  const I32 wi = hn::BitCast(d, w), xi = hn::BitCast(d, x);
  const I32 even = hn::Mul(hn::ShiftRight<16>(hn::ShiftLeft<16>(wi)), hn::ShiftRight<16>(hn::ShiftLeft<16>(xi)));
  return hn::Add(sum, hn::Add(even, hn::Mul(hn::ShiftRight<16>(wi), hn::ShiftRight<16>(xi))));
#endif
}

}  // namespace culebra::cpu::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3_DL
HWY_POP_ATTRIBUTES
#endif
HWY_AFTER_NAMESPACE();
#endif

// f32 vectors over f32, f16 and bf16 data, and the activation functions on them: what the cpu kernels of the families share.
#include "device/numeric.h"

#if defined(CULEBRA_BACKENDS_CPU_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_BACKENDS_CPU_VECTOR_INL_H_
#undef CULEBRA_BACKENDS_CPU_VECTOR_INL_H_
#else
#define CULEBRA_BACKENDS_CPU_VECTOR_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes: a vector never exceeds a 64-byte line.
using F32Tag = HWY_CAPPED(float, 16);
using I32Tag = HWY_CAPPED(int32_t, 16);
using I16Tag = HWY_CAPPED(int16_t, 32);
using F32 = hn::Vec<F32Tag>;
using I32 = hn::Vec<I32Tag>;
using I16 = hn::Vec<I16Tag>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(F32Tag()));

// Without F16C, Highway's emulated f16 conversions neither round nor know infinity.
#if HWY_ARCH_X86 && HWY_TARGET >= HWY_SSE4
inline constexpr bool kHardwareF16 = false;
#else
inline constexpr bool kHardwareF16 = true;
#endif

template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const float* from) {
  return hn::LoadU(d, from);
}

template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const half_t* from) {
  if constexpr (kHardwareF16) {
    const hn::Rebind<hwy::float16_t, D> d16;
    return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
  } else {
    float lanes[hn::MaxLanes(d)];
    for (size_t i = 0; i < hn::MaxLanes(d); ++i) lanes[i] = to_float(from[i]);
    return hn::LoadU(d, lanes);
  }
}

template <class D>
HWY_INLINE hn::Vec<D> load_f32(D d, const bfloat16_t* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from)))));
}

HWY_INLINE void store_f32(F32 x, float* to) { hn::StoreU(x, F32Tag(), to); }

HWY_INLINE void store_f32(F32 x, half_t* to) {
  if constexpr (kHardwareF16) {
    const hn::Rebind<hwy::float16_t, F32Tag> d16;
    hn::StoreU(hn::DemoteTo(d16, x), d16, reinterpret_cast<hwy::float16_t*>(to));
  } else {
    float lanes[kLanes];
    hn::StoreU(x, F32Tag(), lanes);
    for (int i = 0; i < kLanes; ++i) to[i] = from_float<half_t>(lanes[i]);
  }
}

// Highway's own conversion to bf16 truncates; this one rounds to nearest even.
HWY_INLINE void store_f32(F32 x, bfloat16_t* to) {
  const hn::Rebind<uint16_t, F32Tag> d16;
  const hn::RebindToUnsigned<F32Tag> d32;
  const hn::RebindToSigned<F32Tag> di;
  const auto bits = hn::BitCast(d32, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7fff))));
  const auto number = hn::BitCast(d32, hn::VecFromMask(F32Tag(), hn::Eq(x, x)));
  const auto nan_or_rounded = hn::Or(hn::And(rounded, number), hn::AndNot(number, hn::Set(d32, 0x7fff)));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, nan_or_rounded)), d16, reinterpret_cast<uint16_t*>(to));
}

// 1 + e^-x. Highway's exponential is wrong above 104, where this is infinite.
HWY_INLINE F32 one_plus_exp_minus(F32 x) {
  const F32Tag d;
  const F32 e = hn::IfThenElse(hn::Lt(x, hn::Set(d, -88.7f)), hn::Inf(d), hn::Exp(d, hn::Neg(x)));
  return hn::Add(hn::Set(d, 1.0f), e);
}

// x / (1 + e^-x)
HWY_INLINE F32 silu(F32 x) { return hn::Div(x, one_plus_exp_minus(x)); }

// x (1 + erf(x / sqrt 2)) / 2, with erf as in Abramowitz and Stegun 7.1.26: absolute error at most 1.5e-7.
HWY_INLINE F32 gelu(F32 x) {
  const F32Tag d;
  const F32 one = hn::Set(d, 1.0f);
  const F32 z = hn::Mul(hn::Abs(x), hn::Set(d, 0.70710678f));
  const F32 t = hn::Div(one, hn::MulAdd(z, hn::Set(d, 0.3275911f), one));
  F32 series = hn::Set(d, 1.061405429f);
  series = hn::MulAdd(series, t, hn::Set(d, -1.453152027f));
  series = hn::MulAdd(series, t, hn::Set(d, 1.421413741f));
  series = hn::MulAdd(series, t, hn::Set(d, -0.284496736f));
  series = hn::MulAdd(series, t, hn::Set(d, 0.254829592f));
  // erfc(|x| / sqrt 2): the tail of a negative x is small without cancelling.
  const F32 tail = hn::Mul(hn::Mul(series, t), hn::Exp(d, hn::Neg(hn::Mul(z, z))));
  const F32 half_x = hn::Mul(x, hn::Set(d, 0.5f));
  const auto negative = hn::Lt(x, hn::Zero(d));
  return hn::Mul(half_x, hn::IfThenElse(negative, tail, hn::Sub(hn::Set(d, 2.0f), tail)));
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

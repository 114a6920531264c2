// Rows on the cpu: any element type to f32 and back, dot products. Rows of scratch memory are padded with zeros to
// kRowPad elements, so that inner loops have no tail.
#include "abi/dtype.h"
#include "device/numeric.h"

#if defined(CULEBRA_BACKENDS_CPU_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_BACKENDS_CPU_ROWS_INL_H_
#undef CULEBRA_BACKENDS_CPU_ROWS_INL_H_
#else
#define CULEBRA_BACKENDS_CPU_ROWS_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "backends/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

inline constexpr int64_t kRowPad = 16;
HWY_INLINE int64_t padded(int64_t n) { return (n + kRowPad - 1) / kRowPad * kRowPad; }

template <class T>
HWY_INLINE F32 load(const T* from) {
  return load_f32(F32Tag(), from);
}

template <>
HWY_INLINE F32 load(const float8_e4m3_t* from) {
  const F32Tag d;
  const hn::RebindToUnsigned<F32Tag> d32;
  const hn::Rebind<uint8_t, F32Tag> d8;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d8, reinterpret_cast<const uint8_t*>(from)));
  const auto magnitude = hn::And(bits, hn::Set(d32, 0x7f));
  // Read as a float whose exponent is 120 too small; the multiplication by 2^120 is exact and renormalises subnormals.
  const F32 value = hn::Mul(hn::BitCast(d, hn::ShiftLeft<20>(magnitude)), hn::Set(d, 0x1p120f));
  const F32 sign = hn::BitCast(d, hn::ShiftLeft<24>(hn::And(bits, hn::Set(d32, 0x80))));
  const auto is_nan = hn::Eq(magnitude, hn::Set(d32, 0x7f));
  return hn::Or(hn::IfThenElse(hn::RebindMask(d, is_nan), hn::NaN(d), value), sign);
}

// to[0, n) = from, to[n, padded(n)) = 0
template <class T>
HWY_INLINE void load_row(const T* from, int64_t n, float* to) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32Tag()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store_f32(load(from + i), to + i);
  for (; i < n; ++i) to[i] = to_float(from[i]);
  for (; i < padded(n); ++i) to[i] = 0;
}

// May run in place where T is float.
template <class T>
HWY_INLINE void store_row(const float* from, int64_t n, T* to) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32Tag()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store_f32(load(from + i), to + i);
  for (; i < n; ++i) to[i] = from_float<T>(from[i]);
}

HWY_INLINE float sum_of_lanes(F32 x) { return hn::GetLane(hn::SumOfLanes(F32Tag(), x)); }

// to[0..3] = the sums of the lanes of a, b, c, d: half the shuffles of four separate sums. Every sum is made the same
// way.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void sum_halves(D d, V abcd, float* to) {
  if constexpr (hn::MaxLanes(D()) <= 4) {
    hn::StoreU(abcd, d, to);
  } else {
    const hn::Half<D> half;
    sum_halves(half, hn::Add(hn::LowerHalf(half, abcd), hn::UpperHalf(half, abcd)), to);
  }
}
HWY_INLINE void sum_of_lanes(F32 a, F32 b, F32 c, F32 e, float* to) {
  const F32Tag d;
  const hn::Repartition<double, F32Tag> d64;
  // Within each block of four lanes: [a0+a2, b0+b2, a1+a3, b1+b3], then [a, b, c, e].
  const F32 ab = hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
  const F32 ce = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
  const auto ab64 = hn::BitCast(d64, ab), ce64 = hn::BitCast(d64, ce);
  sum_halves(d,
             hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, ab64, ce64)),
                     hn::BitCast(d, hn::InterleaveUpper(d64, ab64, ce64))),
             to);
}

// x *= factor, on padded(n) elements
HWY_INLINE void scale_row(float* x, float factor, int64_t n) {
  const F32 f = hn::Set(F32Tag(), factor);
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(F32Tag()))) store_f32(hn::Mul(load(x + i), f), x + i);
}

// 1 / (1 + e^-x)
HWY_INLINE F32 sigmoid(F32 x) { return hn::Div(hn::Set(F32Tag(), 1.0f), one_plus_exp_minus(x)); }

// f(T{}) with T the element type of an f32, f16 or bf16 tensor.
template <class F>
HWY_INLINE void with_float_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f16:
      return f(half_t{});
    case DType::bf16:
      return f(bfloat16_t{});
    default:
      return f(float{});
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

// Rows on the cpu: any element type to f32 and back, dot products. Rows of scratch memory are padded with zeros to
// kRowPad elements, so that inner loops have no tail.
#include "abi/dtype.h"
#include "device/numeric.h"

#if defined(CULEBRA_OPS_ATTENTION_ROWS_CPU_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_OPS_ATTENTION_ROWS_CPU_INL_H_
#undef CULEBRA_OPS_ATTENTION_ROWS_CPU_INL_H_
#else
#define CULEBRA_OPS_ATTENTION_ROWS_CPU_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "ops/gemm/vector_cpu-inl.h"

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

// 1 / (1 + e^-x)
HWY_INLINE F32 sigmoid(F32 x) {
  const F32 one = hn::Set(F32Tag(), 1.0f);
  return hn::Div(one, hn::Add(one, hn::Exp(F32Tag(), hn::Neg(x))));
}

// f(T{}) with T the element type of an f32, f16 or bf16 tensor.
template <class F>
HWY_INLINE void with_float_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f16: return f(half_t{});
    case DType::bf16: return f(bfloat16_t{});
    default: return f(float{});
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

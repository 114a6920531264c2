// Vectors of f32 over rows of f32, f16 or bf16, for this family's cpu columns. Include inside hwy's foreach_target, in the
// usual per-target way.
#if defined(CULEBRA_OPS_GLUE_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_OPS_GLUE_SIMD_INL_H_
#undef CULEBRA_OPS_GLUE_SIMD_INL_H_
#else
#define CULEBRA_OPS_GLUE_SIMD_INL_H_
#endif

#include <algorithm>
#include <cstring>
#include <limits>

#include "device/numeric.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE::glue {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

// ---- storage types

template <class T>
struct Storage;  // the lane type that holds T, and how f32 is made of it

template <>
struct Storage<float> {
  using Lane = float;
  static HWY_INLINE V decode(V v) { return v; }
  static HWY_INLINE V encode(V v) { return v; }
};

template <>
struct Storage<bfloat16_t> {
  using Lane = uint16_t;
  static constexpr hn::RebindToUnsigned<D> du{};
  static constexpr hn::Rebind<uint16_t, D> d16{};
  static HWY_INLINE V decode(hn::Vec<decltype(d16)> v) {
    return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(du, v)));
  }
  static HWY_INLINE hn::Vec<decltype(d16)> encode(V v) {
    const auto bits = hn::BitCast(du, v);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff))));
    const auto number = hn::RebindMask(du, hn::Eq(v, v));
    // Through i32: the values are below 2^16, and x86 narrows signed numbers with unsigned saturation.
    return hn::DemoteTo(d16, hn::BitCast(hn::RebindToSigned<D>(), hn::IfThenElse(number, rounded, hn::Set(du, 0x7fff))));
  }
};

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2
// Without F16C there is no instruction for f16, and Highway's substitute knows no infinity, NaN or rounding.
template <>
struct Storage<half_t> {
  using Lane = uint16_t;
  static constexpr hn::Rebind<uint16_t, D> d16{};
  static HWY_INLINE V decode(hn::Vec<decltype(d16)> v) {
    HWY_ALIGN uint16_t from[hn::MaxLanes(D())];
    HWY_ALIGN float to[hn::MaxLanes(D())];
    hn::Store(v, d16, from);
    for (size_t i = 0; i < hn::Lanes(D()); ++i) to[i] = numeric::float_from_half(from[i]);
    return hn::Load(D(), to);
  }
  static HWY_INLINE hn::Vec<decltype(d16)> encode(V v) {
    HWY_ALIGN float from[hn::MaxLanes(D())];
    HWY_ALIGN uint16_t to[hn::MaxLanes(D())];
    hn::Store(v, D(), from);
    for (size_t i = 0; i < hn::Lanes(D()); ++i) to[i] = numeric::half_from_float(from[i]);
    return hn::Load(d16, to);
  }
};
#else
template <>
struct Storage<half_t> {
  using Lane = hwy::float16_t;
  static constexpr hn::Rebind<hwy::float16_t, D> d16{};
  static HWY_INLINE V decode(hn::Vec<decltype(d16)> v) { return hn::PromoteTo(D(), v); }
  static HWY_INLINE hn::Vec<decltype(d16)> encode(V v) { return hn::DemoteTo(d16, v); }
};
#endif

// ---- whole and partial vectors: `count` is at most Lanes; missing lanes read as 0 and are not written

template <class T>
HWY_INLINE V load(const T* p, size_t count) {
  using Lane = typename Storage<T>::Lane;
  const hn::Rebind<Lane, D> d;
  if (count == hn::Lanes(D())) return Storage<T>::decode(hn::LoadU(d, reinterpret_cast<const Lane*>(p)));
  HWY_ALIGN T part[hn::MaxLanes(D())] = {};
  std::memcpy(part, p, count * sizeof(T));
  return Storage<T>::decode(hn::Load(d, reinterpret_cast<const Lane*>(part)));
}

template <class T>
HWY_INLINE void store(V v, T* p, size_t count) {
  using Lane = typename Storage<T>::Lane;
  const hn::Rebind<Lane, D> d;
  const auto encoded = Storage<T>::encode(v);
  if (count == hn::Lanes(D())) return hn::StoreU(encoded, d, reinterpret_cast<Lane*>(p));
  HWY_ALIGN T part[hn::MaxLanes(D())];
  hn::Store(encoded, d, reinterpret_cast<Lane*>(part));
  std::memcpy(p, part, count * sizeof(T));
}

// v as it will be read back after a store to T.
template <class T>
HWY_INLINE V round_to(V v) {
  return Storage<T>::decode(Storage<T>::encode(v));
}

// f(first, count) over [0, n) in vectors.
template <class F>
HWY_INLINE void for_vectors(int64_t n, F f) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(D()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) f(i, static_cast<size_t>(lanes));
  if (i < n) f(i, static_cast<size_t>(n - i));
}

// Sum of term(first, count) over [0, n). Two levels, so that the error of long rows does not grow with their length.
template <class F>
HWY_INLINE float sum_over(int64_t n, F term) {
  constexpr int kVectorsPerBlock = 256;
  const D d;
  V total = hn::Zero(d), block = hn::Zero(d);
  int in_block = 0;
  for_vectors(n, [&](int64_t i, size_t count) HWY_ATTR {
    V v = term(i, count);
    if (count < hn::Lanes(d)) v = hn::IfThenElseZero(hn::FirstN(d, count), v);
    block = hn::Add(block, v);
    if (++in_block == kVectorsPerBlock) {
      total = hn::Add(total, block);
      block = hn::Zero(d);
      in_block = 0;
    }
  });
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(total, block)));
}

// The largest number of a row; NaN is passed over. -inf for an empty row.
template <class T>
float max_over(const T* x, int64_t n) {
  const D d;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  V largest = lowest;
  for_vectors(n, [&](int64_t i, size_t count) HWY_ATTR {
    V v = load(x + i, count);
    if (count < hn::Lanes(d)) v = hn::IfThenElse(hn::FirstN(d, count), v, lowest);
    largest = hn::IfThenElse(hn::Gt(v, largest), v, largest);
  });
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// Lowest index of the largest element; NaN is larger than every number. n > 0.
template <class T>
int64_t argmax(const T* x, int64_t n) {
  const D d;
  const V largest = hn::Set(d, max_over(x, n));
  int64_t number = n, nan = n;  // where they first are
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < n && nan == n; i += lanes) {
    const auto count = static_cast<size_t>(std::min(lanes, n - i));
    const auto valid = hn::FirstN(d, count);
    const V v = load(x + i, count);
    // Not Ne: on x86 a NaN is not unequal to itself.
    const intptr_t at_nan = hn::FindFirstTrue(d, hn::AndNot(hn::Eq(v, v), valid));
    if (at_nan >= 0) nan = i + at_nan;
    const intptr_t at_number = number == n ? hn::FindFirstTrue(d, hn::And(valid, hn::Eq(v, largest))) : -1;
    if (at_number >= 0) number = i + at_number;
  }
  return nan < n ? nan : number;
}

// ---- functions

// e^x over all of f32, infinities and NaN included.
HWY_INLINE V exp(V x) {
  const D d;
  const V overflow = hn::Set(d, 88.7228f);
  V e = hn::Exp(d, hn::Min(x, overflow));
  e = hn::IfThenElse(hn::Gt(x, overflow), hn::Set(d, std::numeric_limits<float>::infinity()), e);
  return hn::IfThenElse(hn::Eq(x, x), e, x);
}

HWY_INLINE V sigmoid(V x) {
  const V one = hn::Set(D(), 1.0f);
  return hn::Div(one, hn::Add(one, exp(hn::Neg(x))));
}

}  // namespace culebra::cpu::HWY_NAMESPACE::glue
HWY_AFTER_NAMESPACE();
#endif

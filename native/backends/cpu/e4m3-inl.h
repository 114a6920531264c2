// e4m3 numbers as f32 by few operations: integers widen them to f16, which holds them divided by kE4m3Unit exactly, subnormal ones too.
// The NaNs get lost on that way; holds_nan() tells whether there are any.
#include "device/numeric.h"

#if defined(CULEBRA_BACKENDS_CPU_E4M3_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_BACKENDS_CPU_E4M3_INL_H_
#undef CULEBRA_BACKENDS_CPU_E4M3_INL_H_
#else
#define CULEBRA_BACKENDS_CPU_E4M3_INL_H_
#endif

#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

inline constexpr float kE4m3Unit = 256;

// Two neighbouring vectors, divided by kE4m3Unit.
HWY_INLINE void load_scaled_e4m3(const float8_e4m3_t* from, F32& a, F32& b) {
  if constexpr (kHardwareF16) {
    // The sign bit is extended on the way to 16 bits; seven places up, exponent and mantissa are where f16 has them.
    const hn::Rebind<int8_t, I16Tag> d8;
    const hn::Repartition<hwy::float16_t, I16Tag> d16;
    const I16 wide = hn::PromoteTo(I16Tag(), hn::LoadU(d8, reinterpret_cast<const int8_t*>(from)));
    const auto halves = hn::BitCast(d16, hn::And(hn::ShiftLeft<7>(wide), hn::Set(I16Tag(), static_cast<int16_t>(0xbfff))));
    a = hn::PromoteTo(F32Tag(), hn::LowerHalf(halves));
    b = hn::PromoteTo(F32Tag(), hn::UpperHalf(hn::Half<decltype(d16)>(), halves));
  } else {
    const F32 scale = hn::Set(F32Tag(), 1 / kE4m3Unit);
    a = hn::Mul(load(from), scale);
    b = hn::Mul(load(from + kLanes), scale);
  }
}

// Whether one of n rows of `columns` numbers holds a NaN. columns is a multiple of kRowPad.
HWY_INLINE bool holds_nan(const float8_e4m3_t* const* rows, int64_t n, int64_t columns) {
  const hn::Repartition<uint8_t, F32Tag> d;
  const hn::CappedTag<uint8_t, kRowPad> d_end;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d)), end_lanes = static_cast<int64_t>(hn::Lanes(d_end));
  const auto nan = hn::Set(d, uint8_t{0x7f});
  const auto end_nan = hn::Set(d_end, uint8_t{0x7f});
  auto largest = hn::Zero(d);
  auto end_largest = hn::Zero(d_end);
  for (int64_t j = 0; j < n; ++j) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(rows[j]);
    int64_t i = 0;
    for (; i + lanes <= columns; i += lanes) largest = hn::Max(largest, hn::And(hn::LoadU(d, bytes + i), nan));
    for (; i < columns; i += end_lanes) end_largest = hn::Max(end_largest, hn::And(hn::LoadU(d_end, bytes + i), end_nan));
  }
  return !hn::AllFalse(d, hn::Eq(largest, nan)) || !hn::AllFalse(d_end, hn::Eq(end_largest, end_nan));
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

#include <cstring>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/quantize_activations.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gemm/quantize_activations_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "backends/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
namespace {

// f(i, x, count) for every vector of a run; lanes beyond count are 0.
template <class T, class F>
HWY_INLINE void for_vectors(const T* x, int64_t count, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) f(i, load_f32(F32Tag(), x + i), kLanes);
  if (i == count) return;
  T part[kLanes] = {};
  std::memcpy(part, x + i, static_cast<size_t>(count - i) * sizeof(T));
  f(i, load_f32(F32Tag(), part), static_cast<int>(count - i));
}

// The bytes of the nearest e4m3, by the steps of numeric::e4m3_from_float.
HWY_INLINE I32 e4m3_bytes(F32 x) {
  const F32Tag df;
  const I32Tag di;
  const I32 bits = hn::BitCast(di, x), magnitude = hn::And(bits, hn::Set(di, 0x7fffffff));
  const I32 odd = hn::And(hn::ShiftRight<20>(magnitude), hn::Set(di, 1));
  const I32 normal = hn::Sub(hn::ShiftRight<20>(hn::Add(magnitude, hn::Add(odd, hn::Set(di, 0x7ffff)))), hn::Set(di, 120 << 3));
  const I32 small = hn::Sub(hn::BitCast(di, hn::Add(hn::BitCast(df, magnitude), hn::Set(df, 16384.0f))), hn::Set(di, 0x46800000));
  I32 byte = hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 0x3c800000)), small, normal);
  byte = hn::IfThenElse(hn::Gt(magnitude, hn::Set(di, 0x43dfffff)), hn::Set(di, 0x7e), byte);
  byte = hn::Or(byte, hn::And(hn::ShiftRight<24>(bits), hn::Set(di, 0x80)));
  return hn::IfThenElse(hn::Gt(magnitude, hn::Set(di, 0x7f800000)), hn::Set(di, 0x7f), byte);
}

HWY_INLINE I32 integers(F32 x) {
  const F32Tag d;
  const F32 bounded = hn::Min(hn::Max(x, hn::Set(d, -128.0f)), hn::Set(d, 127.0f));
  return hn::IfThenElseZero(hn::RebindMask(I32Tag(), hn::Eq(x, x)), hn::NearestInt(bounded));
}

template <class T>
void quantize_block(const QuantizeActivationsParams& p, int64_t row, int64_t block) {
  const T* x = static_cast<const T*>(p.x) + row * p.ldx + block * p.block;
  auto* q = static_cast<uint8_t*>(p.q) + row * p.ldq + block * p.block;
  const int64_t count = std::min(p.block, p.k - block * p.block);
  float scale;
  if (p.scale) {
    scale = *p.scale;
  } else {
    const I32Tag d;
    I32 top = hn::Zero(d);
    for_vectors(x, count, [&](int64_t, F32 v, int) HWY_ATTR {
      top = hn::Max(top, hn::And(hn::BitCast(d, v), hn::Set(d, 0x7fffffff)));
    });
    const float amax = numeric::bits_float(static_cast<uint32_t>(hn::GetLane(hn::MaxOfLanes(d, top))));  // a NaN exceeds all numbers
    scale = quantize::activation_scale(amax / quantize::activation_max(p.f8));
    p.scales[row * p.lds + block] = scale;
  }
  const F32 divisor = hn::Set(F32Tag(), scale);
  for_vectors(x, count, [&](int64_t i, F32 v, int lanes) HWY_ATTR {
    const hn::Rebind<int8_t, I32Tag> di8;
    const hn::Rebind<uint8_t, I32Tag> du8;
    const F32 quotient = hn::Div(v, divisor);
    uint8_t bytes[kLanes];
    if (p.f8) hn::StoreU(hn::DemoteTo(du8, e4m3_bytes(quotient)), du8, bytes);
    else hn::StoreU(hn::DemoteTo(di8, integers(quotient)), di8, reinterpret_cast<int8_t*>(bytes));
    std::memcpy(q + i, bytes, static_cast<size_t>(lanes));
  });
}

template <class T>
void run(const QuantizeActivationsParams& p, ThreadPool& pool) {
  pool.parallel_for(p.m * p.blocks, std::max<int64_t>(1, 16384 / std::max<int64_t>(p.block, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) quantize_block<T>(p, i / p.blocks, i % p.blocks);
  });
}

}  // namespace

void quantize_activations_vector(const QuantizeActivationsParams& p, ThreadPool& pool) {
  if (p.dtype == DType::f32) run<float>(p, pool);
  else if (p.dtype == DType::f16) run<half_t>(p, pool);
  else run<bfloat16_t>(p, pool);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(quantize_activations_vector);
void quantize_activations(const QuantizeActivationsParams& p, ThreadPool& pool) {
  HWY_DYNAMIC_DISPATCH(quantize_activations_vector)(p, pool);
}
}  // namespace culebra::cpu
#endif

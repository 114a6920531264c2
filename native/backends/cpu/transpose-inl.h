// A square block of rows of any element type into f32 columns, by the shuffles of the machine's vectors.
#include "device/numeric.h"

#if defined(CULEBRA_BACKENDS_CPU_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_BACKENDS_CPU_TRANSPOSE_INL_H_
#undef CULEBRA_BACKENDS_CPU_TRANSPOSE_INL_H_
#else
#define CULEBRA_BACKENDS_CPU_TRANSPOSE_INL_H_
#endif

#include "hwy/highway.h"
#include "backends/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// A square block of kLanes rows, stride apart, into columns: column c of row r goes to to[c * to_stride + r].
template <class T>
HWY_NOINLINE void transpose_block(const T* from, int64_t stride, float* to, int64_t to_stride) {
  const F32Tag d;
  const hn::Repartition<double, F32Tag> d2;
  F32 y[kLanes];
  // Within 128-bit blocks: block j of y[q + i] holds the column 4 j + i of the rows q .. q + 3.
#pragma GCC unroll 16
  for (int q = 0; q < kLanes; q += 4) {
    const F32 r0 = load_f32(d, from + q * stride), r1 = load_f32(d, from + (q + 1) * stride);
    const F32 r2 = load_f32(d, from + (q + 2) * stride), r3 = load_f32(d, from + (q + 3) * stride);
    const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d, r0, r1)), low23 = hn::BitCast(d2, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d, r0, r1)), high23 = hn::BitCast(d2, hn::InterleaveUpper(d, r2, r3));
    y[q] = hn::BitCast(d, hn::InterleaveLower(d2, low01, low23));
    y[q + 1] = hn::BitCast(d, hn::InterleaveUpper(d2, low01, low23));
    y[q + 2] = hn::BitCast(d, hn::InterleaveLower(d2, high01, high23));
    y[q + 3] = hn::BitCast(d, hn::InterleaveUpper(d2, high01, high23));
  }
  // Then the blocks among the quads of rows.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const auto put = [&](int column, F32 x) HWY_ATTR { store_f32(x, to + (column + i) * to_stride); };
    if constexpr (kLanes == 4) {
      put(0, y[i]);
    } else if constexpr (kLanes == 8) {
      put(0, hn::ConcatLowerLower(d, y[4 + i], y[i]));
      put(4, hn::ConcatUpperUpper(d, y[4 + i], y[i]));
    } else {
      const F32 low02 = hn::ConcatLowerLower(d, y[8 + i], y[i]), low13 = hn::ConcatLowerLower(d, y[12 + i], y[4 + i]);
      const F32 high02 = hn::ConcatUpperUpper(d, y[8 + i], y[i]), high13 = hn::ConcatUpperUpper(d, y[12 + i], y[4 + i]);
      put(0, hn::OddEvenBlocks(hn::SwapAdjacentBlocks(low13), low02));
      put(4, hn::OddEvenBlocks(low13, hn::SwapAdjacentBlocks(low02)));
      put(8, hn::OddEvenBlocks(hn::SwapAdjacentBlocks(high13), high02));
      put(12, hn::OddEvenBlocks(high13, hn::SwapAdjacentBlocks(high02)));
    }
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

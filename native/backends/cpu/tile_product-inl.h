// Products of small f32 matrices in the caches: several rows of a meet rows of b in registers. Each element's sum runs over k in
// order, one fused multiplication and addition a step, whatever the blocking: it does not depend on how many rows or columns there are.
#include "device/numeric.h"

#if defined(CULEBRA_BACKENDS_CPU_TILE_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_BACKENDS_CPU_TILE_PRODUCT_INL_H_
#undef CULEBRA_BACKENDS_CPU_TILE_PRODUCT_INL_H_
#else
#define CULEBRA_BACKENDS_CPU_TILE_PRODUCT_INL_H_
#endif

#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// c = a b, or c = factor_r c + a b where there are factors: R rows of a and V vectors of columns of b and c.
template <int R, int V>
HWY_NOINLINE void multiply_block(const float* HWY_RESTRICT a, int64_t a_pitch, const float* HWY_RESTRICT b, int64_t b_pitch, int64_t count,
                                 const float* HWY_RESTRICT factors, float* HWY_RESTRICT c, int64_t c_pitch) {
  const F32Tag d;
  F32 sum[R][V];
#pragma GCC unroll 32
  for (int i = 0; i < R * V; ++i)
    sum[i / V][i % V] = factors ? hn::Mul(hn::Set(d, factors[i / V]), load(c + i / V * c_pitch + i % V * kLanes)) : hn::Zero(d);
  for (int64_t k = 0; k < count; ++k) {
    F32 row[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) row[v] = load(b + k * b_pitch + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F32 x = hn::Set(d, a[r * a_pitch + k]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = hn::MulAdd(x, row[v], sum[r][v]);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < R * V; ++i) store_f32(sum[i / V][i % V], c + i / V * c_pitch + i % V * kLanes);
}

// As many sums as the registers hold beside a row of b: 6 rows of 4 vectors where there are 32 registers, of 2 where there are 16.
inline constexpr int kProductRows = 6;
inline constexpr int kProductVectors = kLanes == 16 ? 4 : 2;

template <int V>
HWY_INLINE void multiply_rows(const float* a, int64_t a_pitch, int64_t rows, const float* b, int64_t b_pitch, int64_t count, const float* factors,
                              float* c, int64_t c_pitch) {
  int64_t r = 0;
  const auto block = [&]<int R>() HWY_ATTR {
    for (; r + R <= rows; r += R)
      multiply_block<R, V>(a + r * a_pitch, a_pitch, b, b_pitch, count, factors ? factors + r : nullptr, c + r * c_pitch, c_pitch);
  };
  block.template operator()<kProductRows>();
  block.template operator()<2>();
  block.template operator()<1>();
}

// c [rows, columns] = a [rows, count] b [count, columns], or added to factor_r times c; columns is a multiple of kRowPad.
HWY_INLINE void multiply_tile(const float* a, int64_t a_pitch, int64_t rows, const float* b, int64_t b_pitch, int64_t count, int64_t columns,
                              const float* factors, float* c, int64_t c_pitch) {
  constexpr int64_t kWide = int64_t{kProductVectors} * kLanes;
  int64_t column = 0;
  for (; column + kWide <= columns; column += kWide)
    multiply_rows<kProductVectors>(a, a_pitch, rows, b + column, b_pitch, count, factors, c + column, c_pitch);
  if constexpr (kWide > kRowPad)
    for (; column < columns; column += kRowPad)
      multiply_rows<kRowPad / kLanes>(a, a_pitch, rows, b + column, b_pitch, count, factors, c + column, c_pitch);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

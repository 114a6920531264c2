// Few query rows meet keys and values where they lie, in the cache's own type: what a decode step does. A key's vectors are loaded and
// converted once, in registers, for up to kFewRows rows at a time; values likewise. Every product and sum of a row is made the same way
// however many rows there are.
//
// e4m3 numbers come divided by kUnit, and without NaNs (backends/cpu/e4m3-inl.h): the caller multiplies what comes out, and asks first.
#include <algorithm>
#include <type_traits>

#include "device/numeric.h"

#if defined(CULEBRA_OPS_ATTENTION_FEW_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_OPS_ATTENTION_FEW_ROWS_INL_H_
#undef CULEBRA_OPS_ATTENTION_FEW_ROWS_INL_H_
#else
#define CULEBRA_OPS_ATTENTION_FEW_ROWS_INL_H_
#endif

#include "backends/cpu/e4m3-inl.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// Rows at once: their sums and a key's vectors fill the registers.
inline constexpr int64_t kFewRows = kLanes == 16 ? 4 : 2;

template <class C>
inline constexpr float kUnit = 1;
template <>
inline constexpr float kUnit<float8_e4m3_t> = kE4m3Unit;

// Two neighbouring vectors of a row, divided by kUnit; one.
template <class C>
HWY_INLINE void load_two(const C* from, F32& a, F32& b) {
  a = load(from);
  b = load(from + kLanes);
}
template <>
HWY_INLINE void load_two(const float8_e4m3_t* from, F32& a, F32& b) {
  load_scaled_e4m3(from, a, b);
}
template <class C>
HWY_INLINE F32 load_one(const C* from) {
  return load(from);
}
template <>
HWY_INLINE F32 load_one(const float8_e4m3_t* from) {
  return hn::Mul(load(from), hn::Set(F32Tag(), 1 / kE4m3Unit));
}

// Rows of keys and values that will be read soon. Both are fetched while scores are computed: two streams from memory at a time are nearly
// twice as fast as one after the other, and rows of a head are too short and too far apart for the hardware to foresee.
template <class C>
struct NextRows {
  const C* const* k = nullptr;
  const C* const* v = nullptr;
};
template <class C>
HWY_INLINE void fetch_row(const C* row, int64_t n) {
  for (int64_t i = 0; i < n; i += 64 / static_cast<int64_t>(sizeof(C))) __builtin_prefetch(row + i);
}

// scores[r * pitch + j] = q_r . k_j / kUnit for R rows of q, q_pitch apart, and n keys; scores has room for n rounded up to 8. dim is a
// multiple of kRowPad.
template <class C, int64_t R>
HWY_NOINLINE void score_keys(const float* q, int64_t q_pitch, const C* const* k, const NextRows<C>& next, int64_t n, int64_t dim, int64_t value_dim,
                             float* scores, int64_t pitch) {
  constexpr int64_t kAtOnce = R == 1 ? 8 : 4;
  const F32Tag d;
  for (int64_t j = 0; j < n; j += kAtOnce) {
    const C* keys[kAtOnce];  // beyond n the last key is computed again
    HWY_UNROLL(8)
    for (int64_t c = 0; c < kAtOnce; ++c) keys[c] = k[std::min(j + c, n - 1)];
    if (next.k)
      for (int64_t c = j; c < std::min(j + kAtOnce, n); ++c) {
        fetch_row(next.k[c], dim);
        fetch_row(next.v[c], value_dim);
      }
    F32 sum[R][kAtOnce];
    HWY_UNROLL(16)
    for (int64_t c = 0; c < R * kAtOnce; ++c) sum[c / kAtOnce][c % kAtOnce] = hn::Zero(d);
    int64_t i = 0;
    for (; i + 2 * kLanes <= dim; i += 2 * kLanes) {
      F32 x[R][2];
      HWY_UNROLL(8)
      for (int64_t r = 0; r < R; ++r) {
        x[r][0] = load(q + r * q_pitch + i);
        x[r][1] = load(q + r * q_pitch + i + kLanes);
      }
      HWY_UNROLL(8)
      for (int64_t c = 0; c < kAtOnce; ++c) {
        F32 a, b;
        load_two(keys[c] + i, a, b);
        HWY_UNROLL(8)
        for (int64_t r = 0; r < R; ++r) sum[r][c] = hn::MulAdd(x[r][0], a, sum[r][c]);
        HWY_UNROLL(8)
        for (int64_t r = 0; r < R; ++r) sum[r][c] = hn::MulAdd(x[r][1], b, sum[r][c]);
      }
    }
    if (i < dim) {
      HWY_UNROLL(8)
      for (int64_t c = 0; c < kAtOnce; ++c) {
        const F32 a = load_one(keys[c] + i);
        HWY_UNROLL(8)
        for (int64_t r = 0; r < R; ++r) sum[r][c] = hn::MulAdd(load(q + r * q_pitch + i), a, sum[r][c]);
      }
    }
    HWY_UNROLL(8)
    for (int64_t r = 0; r < R; ++r) {
      HWY_UNROLL(2)
      for (int64_t c = 0; c < kAtOnce; c += 4) sum_of_lanes(sum[r][c], sum[r][c + 1], sum[r][c + 2], sum[r][c + 3], scores + r * pitch + j + c);
    }
  }
}

// o_r = rescale_r o_r + sum_j weights[r * pitch + j] v_j / kUnit, on V vectors of channels from `channel` on.
template <class C, int64_t R, int64_t V>
HWY_NOINLINE void add_channels(const C* const* v, int64_t n, int64_t channel, const float* weights, int64_t pitch, const float* rescale, float* o,
                               int64_t o_pitch) {
  const F32Tag d;
  F32 sum[R][V];
  HWY_UNROLL(16)
  for (int64_t c = 0; c < R * V; ++c) sum[c / V][c % V] = hn::Mul(hn::Set(d, rescale[c / V]), load(o + c / V * o_pitch + channel + c % V * kLanes));
  for (int64_t j = 0; j < n; ++j) {
    F32 row[V];
    if constexpr (V == 1) {
      row[0] = load_one(v[j] + channel);
    } else {
      HWY_UNROLL(8)
      for (int64_t c = 0; c < V; c += 2) load_two(v[j] + channel + c * kLanes, row[c], row[c + 1]);
    }
    HWY_UNROLL(8)
    for (int64_t r = 0; r < R; ++r) {
      const F32 w = hn::Set(d, weights[r * pitch + j]);
      HWY_UNROLL(8)
      for (int64_t c = 0; c < V; ++c) sum[r][c] = hn::MulAdd(w, row[c], sum[r][c]);
    }
  }
  HWY_UNROLL(16)
  for (int64_t c = 0; c < R * V; ++c) store_f32(sum[c / V][c % V], o + c / V * o_pitch + channel + c % V * kLanes);
}

// As above on all channels; dim is a multiple of kRowPad.
template <class C, int64_t R>
HWY_INLINE void add_rows(const C* const* v, int64_t n, int64_t dim, const float* weights, int64_t pitch, const float* rescale, float* o, int64_t o_pitch) {
  constexpr int64_t kVectors = 4;
  int64_t i = 0;
  for (; i + kVectors * kLanes <= dim; i += kVectors * kLanes) add_channels<C, R, kVectors>(v, n, i, weights, pitch, rescale, o, o_pitch);
  for (; i < dim; i += kLanes) add_channels<C, R, 1>(v, n, i, weights, pitch, rescale, o, o_pitch);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

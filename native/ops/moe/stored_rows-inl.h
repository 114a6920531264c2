// Products of a few tokens with rows of f8 and int4 experts, which are dequantised in registers. The numbers and the order of the sums are
// those of rows that wait as f32 (expert_rows-inl.h): a sum's bits do not tell which way it was made.
#include <algorithm>

#include "ops/moe/experts.h"

#if defined(CULEBRA_OPS_MOE_STORED_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_OPS_MOE_STORED_ROWS_INL_H_
#undef CULEBRA_OPS_MOE_STORED_ROWS_INL_H_
#else
#define CULEBRA_OPS_MOE_STORED_ROWS_INL_H_
#endif

#include "hwy/highway.h"
#include "backends/cpu/e4m3-inl.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// Rows of a matrix and tokens in flight at once: as many sums as registers hold beside their operands.
constexpr int64_t kRows = 4;
constexpr int64_t kTokenTile = kLanes == 16 ? 4 : 2;

// Columns that a source gives at once.
constexpr int64_t kStoredStep = 2 * kLanes;

// A source has the rows of a matrix from one column on, as far as their scales reach: rows [kRows], and two() of row r.

struct F8Source {
  const float8_e4m3_t* rows[kRows];
  F32 scales[kRows];
  static constexpr int64_t kColumns = 128;

  HWY_INLINE void two(int64_t r, int64_t i, F32& a, F32& b) const {
    load_scaled_e4m3(rows[r] + i, a, b);
    a = hn::Mul(a, scales[r]);
    b = hn::Mul(b, scales[r]);
  }
};

#if HWY_TARGET == HWY_AVX3
inline constexpr bool kInt4Lookup = true;
// The sixteen numbers that a code may stand for fill a vector: its four bits choose one of them.
struct Int4Source {
  const uint8_t* rows[kRows];
  F32 numbers[kRows];

  HWY_INLINE static F32 table(float scale, int zero) {
    const I32Tag di;
    return hn::Mul(hn::ConvertTo(F32Tag(), hn::Sub(hn::Iota(di, 0), hn::Set(di, zero))), hn::Set(F32Tag(), scale));
  }
  HWY_INLINE void two(int64_t r, int64_t i, F32& a, F32& b) const {
    // Byte l / 2 of eight goes to lane l, whose low or high four bits then come down.
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + i / 2)));
    const __m512i first = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8)), shifts = _mm512_set_epi32(4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0);
    a = F32{_mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_shuffle_epi8(bytes, first), shifts), numbers[r].raw)};
    b = F32{_mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_shuffle_epi8(bytes, second), shifts), numbers[r].raw)};
  }
};
#else
inline constexpr bool kInt4Lookup = false;
#endif

// out[t][r] = row r . x_t over n columns, whose scales change every `group`; source(k) is what there is from column k on.
template <int64_t kTokens, class Source>
HWY_INLINE void dot_stored(Source&& source, const float* const* x, int64_t n, int64_t group, float (*out)[kRows]) {
  const F32Tag d;
  F32 sum[kTokens][kRows];
  HWY_UNROLL(16)
  for (int64_t c = 0; c < kTokens * kRows; ++c) sum[c / kRows][c % kRows] = hn::Zero(d);
  for (int64_t k = 0; k < n; k += group) {
    const auto rows = source(k);
    const int64_t columns = std::min(group, n - k);
    for (int64_t i = 0; i < columns; i += kStoredStep) {
      F32 row[2][kRows];
      HWY_UNROLL(8)
      for (int64_t r = 0; r < kRows; ++r) rows.two(r, i, row[0][r], row[1][r]);
      HWY_UNROLL(8)
      for (int64_t t = 0; t < kTokens; ++t) {
        HWY_UNROLL(2)
        for (int64_t half = 0; half < 2; ++half) {
          const F32 input = load(x[t] + k + i + half * kLanes);
          HWY_UNROLL(8)
          for (int64_t r = 0; r < kRows; ++r) sum[t][r] = hn::MulAdd(row[half][r], input, sum[t][r]);
        }
      }
    }
  }
  HWY_UNROLL(8)
  for (int64_t t = 0; t < kTokens; ++t) sum_of_lanes(sum[t][0], sum[t][1], sum[t][2], sum[t][3], out[t]);
}

template <int64_t kTokens>
HWY_NOINLINE void dot_f8(const ExpertMatrices& m, int64_t e, const int64_t (&n)[kRows], const float* const* x, float (*out)[kRows]) {
  const auto source = [&](int64_t k) HWY_ATTR {
    F8Source s;
    HWY_UNROLL(8)
    for (int64_t r = 0; r < kRows; ++r) {
      s.rows[r] = static_cast<const float8_e4m3_t*>(m.data) + e * m.expert_stride + n[r] * m.row_stride + k;
      const float scale = static_cast<const float*>(m.scales)[e * m.scale_expert_stride + n[r] / 128 * m.scale_row_stride + k / 128];
      s.scales[r] = hn::Set(F32Tag(), scale * kE4m3Unit);
      __builtin_prefetch(s.rows[r] + kRows * m.row_stride);  // rows that come soon
      __builtin_prefetch(s.rows[r] + kRows * m.row_stride + 64);
    }
    return s;
  };
  dot_stored<kTokens>(source, x, m.columns, F8Source::kColumns, out);
}

template <class S>
HWY_INLINE float int4_scale(const ExpertMatrices& m, int64_t e, int64_t n, int64_t g) {
  return to_float(static_cast<const S*>(m.scales)[e * m.scale_expert_stride + n * m.scale_row_stride + g]);
}
HWY_INLINE float int4_scale(const ExpertMatrices& m, int64_t e, int64_t n, int64_t g) {
  return m.scale_dtype == DType::f16 ? int4_scale<half_t>(m, e, n, g) : int4_scale<bfloat16_t>(m, e, n, g);
}
HWY_INLINE int int4_zero(const ExpertMatrices& m, int64_t e, int64_t n, int64_t g) {
  return m.zeros ? m.zeros[e * m.zero_expert_stride + n / 2 * m.zero_row_stride + g] >> (n % 2 * 4) & 15 : 8;
}

#if HWY_TARGET == HWY_AVX3
template <int64_t kTokens>
HWY_NOINLINE void dot_int4(const ExpertMatrices& m, int64_t e, const int64_t (&n)[kRows], const float* const* x, float (*out)[kRows]) {
  const auto source = [&](int64_t k) HWY_ATTR {
    Int4Source s;
    HWY_UNROLL(8)
    for (int64_t r = 0; r < kRows; ++r) {
      s.rows[r] = static_cast<const uint8_t*>(m.data) + e * m.expert_stride + n[r] * m.row_stride + k / 2;
      s.numbers[r] = Int4Source::table(int4_scale(m, e, n[r], k / m.group), int4_zero(m, e, n[r], k / m.group));
      __builtin_prefetch(s.rows[r] + kRows * m.row_stride);  // rows that come soon
    }
    return s;
  };
  dot_stored<kTokens>(source, x, m.columns, m.group, out);
}
#else
template <int64_t kTokens>
void dot_int4(const ExpertMatrices&, int64_t, const int64_t (&)[kRows], const float* const*, float (*)[kRows]) {}
#endif

// Whether few tokens may meet these matrices in registers: whole steps only.
HWY_INLINE bool multiplies_stored(const ExpertMatrices& m) {
  if (m.storage == CUL_EXPERTS_F8) return kHardwareF16 && m.columns % kStoredStep == 0;
  return kInt4Lookup && m.storage == CUL_EXPERTS_INT4 && m.columns % kStoredStep == 0 && m.group % kStoredStep == 0;
}

// out[t][i] = row n[i] of expert e . x_t for up to kTokenTile tokens; false where the rows hold a NaN, which the conversion would lose.
HWY_INLINE bool dot_stored_rows(const ExpertMatrices& m, int64_t e, const int64_t (&n)[kRows], const float* const* x, int64_t tokens,
                                float (*out)[kRows]) {
  if (m.storage == CUL_EXPERTS_F8) {
    const float8_e4m3_t* rows[kRows];
    for (int64_t r = 0; r < kRows; ++r) rows[r] = static_cast<const float8_e4m3_t*>(m.data) + e * m.expert_stride + n[r] * m.row_stride;
    if (holds_nan(rows, kRows, m.columns)) return false;
  }
  const auto run = [&]<int64_t kTokens>() {
    if (m.storage == CUL_EXPERTS_F8) dot_f8<kTokens>(m, e, n, x, out);
    else dot_int4<kTokens>(m, e, n, x, out);
  };
  if constexpr (kTokenTile == 4) {
    if (tokens > 2) {
      if (tokens == 4) run.template operator()<4>();
      else run.template operator()<3>();
      return true;
    }
  }
  if (tokens == 2) run.template operator()<2>();
  else run.template operator()<1>();
  return true;
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

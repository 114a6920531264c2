// Rows of experts as f32, and their products with rows of tokens, on the cpu.
#include <algorithm>
#include <utility>
#include <vector>

#include "ops/moe/experts.h"

#if defined(CULEBRA_OPS_MOE_EXPERT_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_OPS_MOE_EXPERT_ROWS_INL_H_
#undef CULEBRA_OPS_MOE_EXPERT_ROWS_INL_H_
#else
#define CULEBRA_OPS_MOE_EXPERT_ROWS_INL_H_
#endif

#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"
#include "ops/moe/stored_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

HWY_INLINE void load_int4_row(const ExpertMatrices& m, int64_t e, int64_t n, float* to) {
  const F32Tag d;
  const hn::RebindToSigned<F32Tag> di;
  const hn::Rebind<uint8_t, F32Tag> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const uint8_t* bytes = static_cast<const uint8_t*>(m.data) + e * m.expert_stride + n * m.row_stride;
  for (int64_t begin = 0, g = 0; begin < m.columns; begin += m.group, ++g) {
    const int64_t end = std::min(begin + m.group, m.columns);
    const float scale = int4_scale(m, e, n, g);
    const int zero = int4_zero(m, e, n, g);
    int64_t i = begin;
#if HWY_TARGET == HWY_AVX3
    Int4Source codes;
    codes.rows[0] = bytes;
    codes.numbers[0] = Int4Source::table(scale, zero);
    if (begin % 2 == 0)
      for (F32 a, b; i + 2 * lanes <= end; i += 2 * lanes) {
        codes.two(0, i, a, b);
        store_f32(a, to + i);
        store_f32(b, to + i + lanes);
      }
#endif
    for (; i + 2 * lanes <= end; i += 2 * lanes) {
      const auto pair = hn::PromoteTo(di, hn::LoadU(d8, bytes + i / 2));
      const auto z = hn::Set(di, zero);
      const F32 s = hn::Set(d, scale);
      const F32 even = hn::Mul(hn::ConvertTo(d, hn::Sub(hn::And(pair, hn::Set(di, 15)), z)), s);
      const F32 odd = hn::Mul(hn::ConvertTo(d, hn::Sub(hn::ShiftRight<4>(pair), z)), s);
      hn::StoreInterleaved2(even, odd, d, to + i);
    }
    for (; i < end; ++i) to[i] = static_cast<float>((bytes[i / 2] >> (i % 2 * 4) & 15) - zero) * scale;
  }
  std::fill(to + m.columns, to + padded(m.columns), 0.0f);
}

HWY_INLINE void load_f8_row(const ExpertMatrices& m, int64_t e, int64_t n, float* to) {
  const float8_e4m3_t* row = static_cast<const float8_e4m3_t*>(m.data) + e * m.expert_stride + n * m.row_stride;
  const float* scales = static_cast<const float*>(m.scales) + e * m.scale_expert_stride + n / 128 * m.scale_row_stride;
  load_row(row, m.columns, to);
  for (int64_t i = 0; i < m.columns; i += 128)
    scale_row(to + i, scales[i / 128], std::min<int64_t>(m.columns - i, 128));
}

HWY_INLINE void load_expert_row(const ExpertMatrices& m, int64_t e, int64_t n, float* to) {
  if (m.storage == CUL_EXPERTS_INT4) return load_int4_row(m, e, n, to);
  if (m.storage == CUL_EXPERTS_F8) return load_f8_row(m, e, n, to);
  const int64_t at = e * m.expert_stride + n * m.row_stride;
  if (m.dtype == DType::f16) return load_row(static_cast<const half_t*>(m.data) + at, m.columns, to);
  load_row(static_cast<const bfloat16_t*>(m.data) + at, m.columns, to);
}

// ---- products

// out[t][r] = row r . x_t, rows pitch apart, for kTokens inputs x_t
template <int64_t kTokens>
HWY_INLINE void dot_rows(const float* rows, const float* const* x, int64_t pitch, float (*out)[kRows]) {
  const F32Tag d;
  F32 sum[kTokens][kRows];
  HWY_UNROLL(16)
  for (int64_t t = 0; t < kTokens; ++t) {
    HWY_UNROLL(16)
    for (int64_t r = 0; r < kRows; ++r) sum[t][r] = hn::Zero(d);
  }
  for (int64_t i = 0; i < pitch; i += kLanes) {
    F32 row[kRows];
    HWY_UNROLL(16)
    for (int64_t r = 0; r < kRows; ++r) row[r] = load(rows + r * pitch + i);
    HWY_UNROLL(16)
    for (int64_t t = 0; t < kTokens; ++t) {
      const F32 input = load(x[t] + i);
      HWY_UNROLL(16)
      for (int64_t r = 0; r < kRows; ++r) sum[t][r] = hn::MulAdd(row[r], input, sum[t][r]);
    }
  }
  HWY_UNROLL(16)
  for (int64_t t = 0; t < kTokens; ++t) sum_of_lanes(sum[t][0], sum[t][1], sum[t][2], sum[t][3], out[t]);
}

HWY_INLINE void dot_rows(const float* rows, const float* const* x, int64_t tokens, int64_t pitch, float (*out)[kRows]) {
  if constexpr (kTokenTile == 4) {
    if (tokens == 4) return dot_rows<4>(rows, x, pitch, out);
    if (tokens == 3) return dot_rows<3>(rows, x, pitch, out);
  }
  if (tokens == 2) return dot_rows<2>(rows, x, pitch, out);
  dot_rows<1>(rows, x, pitch, out);
}

// Pairs of rows that a work item takes: gate and up rows, or neighbouring ones.
constexpr int64_t kBlockPairs = kExpertBlockPairs;

// Pairs [begin, end) of rows of expert e's matrix, pair i = rows_of(i), meet the slots [s0, s1). Rows wait as f32 while
// all tokens pass: with few tokens kRows, which stay in the L1 cache, else all of the block. f8 and int4 rows of few tokens do without.
template <class Rows, class Input, class Output>
HWY_INLINE void multiply_pairs(const ExpertMatrices& m, int64_t e, int64_t begin, int64_t end,
                               Rows&& rows_of, int64_t s0, int64_t s1, Input&& input, Output&& output) {
  static thread_local std::vector<float> memory;
  const int64_t pitch = padded(m.columns);
  memory.resize(static_cast<size_t>(2 * kBlockPairs * pitch));
  float* const rows = memory.data();
  const int64_t step = s1 - s0 > kTokenTile ? kBlockPairs : kRows / 2;
  const bool stored = s1 - s0 <= kTokenTile && multiplies_stored(m);
  for (int64_t block = begin; block < end; block += step) {
    const int64_t pairs = std::min(step, end - block);
    if (stored) {
      const auto [a, b] = rows_of(block);
      const auto [c, d] = rows_of(block + pairs - 1);
      const int64_t n[kRows] = {a, std::min(b, m.rows - 1), c, std::min(d, m.rows - 1)};  // leftovers repeat a row
      const float* x[kTokenTile];
      for (int64_t t = 0; t < s1 - s0; ++t) x[t] = input(s0 + t);
      float out[kTokenTile][kRows];
      if (dot_stored_rows(m, e, n, x, s1 - s0, out)) {
        for (int64_t t = 0; t < s1 - s0; ++t)
          for (int64_t i = 0; i < pairs; ++i) output(s0 + t, block + i, out[t] + 2 * i);
        continue;
      }
    }
    for (int64_t i = 0; i < pairs; ++i) {
      const auto [a, b] = rows_of(block + i);
      load_expert_row(m, e, a, rows + 2 * i * pitch);
      if (b < m.rows) load_expert_row(m, e, b, rows + (2 * i + 1) * pitch);
    }
    for (int64_t s = s0; s < s1; s += kTokenTile) {
      const int64_t tokens = std::min(kTokenTile, s1 - s);
      const float* x[kTokenTile];
      for (int64_t t = 0; t < tokens; ++t) x[t] = input(s + t);
      for (int64_t i = 0; i < pairs; i += kRows / 2) {
        float out[kTokenTile][kRows];  // of a last lone pair, two columns are leftovers that nobody reads
        dot_rows(rows + 2 * i * pitch, x, tokens, pitch, out);
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t j = i; j < std::min(i + kRows / 2, pairs); ++j) output(s + t, block + j, out[t] + 2 * (j - i));
      }
    }
  }
}

// ---- bf16 rows as they are

#if HWY_TARGET == HWY_AVX3
HWY_PUSH_ATTRIBUTES("avx512bf16")  // no target of Highway's that is compiled here: asked for at run time

// As dot_rows above, of n channels: products of pairs of bf16 numbers, twice as many a step as in f32.
template <int64_t kTokens>
HWY_NOINLINE void dot_bf16_rows(const bfloat16_t* const* rows, const bfloat16_t* const* x, int64_t n, float (*out)[kRows]) {
  __m512 sum[kTokens][kRows];
#pragma GCC unroll 16
  for (int64_t c = 0; c < kTokens * kRows; ++c) sum[c / kRows][c % kRows] = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    __m512i row[kRows];
#pragma GCC unroll 4
    for (int64_t r = 0; r < kRows; ++r) row[r] = _mm512_loadu_si512(rows[r] + i);
#pragma GCC unroll 4
    for (int64_t t = 0; t < kTokens; ++t) {
      const __m512bh input = (__m512bh)_mm512_loadu_si512(x[t] + i);
#pragma GCC unroll 4
      for (int64_t r = 0; r < kRows; ++r) sum[t][r] = _mm512_dpbf16_ps(sum[t][r], (__m512bh)row[r], input);
    }
  }
  if (i < n) {
    const __mmask32 mask = (__mmask32{1} << (n - i)) - 1;
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t r = 0; r < kRows; ++r)
        sum[t][r] = _mm512_dpbf16_ps(sum[t][r], (__m512bh)_mm512_maskz_loadu_epi16(mask, rows[r] + i),
                                     (__m512bh)_mm512_maskz_loadu_epi16(mask, x[t] + i));
  }
#pragma GCC unroll 4
  for (int64_t t = 0; t < kTokens; ++t) sum_of_lanes(F32{sum[t][0]}, F32{sum[t][1]}, F32{sum[t][2]}, F32{sum[t][3]}, out[t]);
}

HWY_POP_ATTRIBUTES
inline constexpr bool kBf16Products = true;
HWY_INLINE bool has_bf16_products() {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
}
#else
inline constexpr bool kBf16Products = false;
HWY_INLINE bool has_bf16_products() { return false; }
template <int64_t kTokens>
void dot_bf16_rows(const bfloat16_t* const*, const bfloat16_t* const*, int64_t, float (*)[kRows]) {}
#endif

// Whether the products of these experts run on bf16 numbers as they are stored, the inputs' too.
HWY_INLINE bool multiplies_bf16(const ExpertMatrices& m) {
  return kBf16Products && m.storage == CUL_EXPERTS_HALF && m.dtype == DType::bf16 && has_bf16_products();
}

// As multiply_pairs, where multiplies_bf16: rows are read in place, and nothing is converted.
template <class Rows, class Input, class Output>
HWY_INLINE void multiply_bf16_pairs(const ExpertMatrices& m, int64_t e, int64_t begin, int64_t end, Rows&& rows_of, int64_t s0, int64_t s1,
                                    Input&& input, Output&& output) {
  constexpr int64_t kTile = 4;
  const auto row = [&](int64_t n) {  // beyond the matrix the last one is computed again
    return static_cast<const bfloat16_t*>(m.data) + e * m.expert_stride + std::min(n, m.rows - 1) * m.row_stride;
  };
  const int64_t step = s1 - s0 > kTile ? kBlockPairs : kRows / 2;
  for (int64_t block = begin; block < end; block += step) {
    const int64_t pairs = std::min(step, end - block);
    for (int64_t s = s0; s < s1; s += kTile) {
      const int64_t tokens = std::min(kTile, s1 - s);
      const bfloat16_t* x[kTile];
      for (int64_t t = 0; t < tokens; ++t) x[t] = input(s + t);
      for (int64_t i = 0; i < pairs; i += kRows / 2) {
        const auto [a, b] = rows_of(block + i);
        const auto [c, d] = rows_of(block + std::min(i + 1, pairs - 1));
        const bfloat16_t* const rows[kRows] = {row(a), row(b), row(c), row(d)};
        float out[kTile][kRows];
        if (tokens == 4) dot_bf16_rows<4>(rows, x, m.columns, out);
        else if (tokens == 3) dot_bf16_rows<3>(rows, x, m.columns, out);
        else if (tokens == 2) dot_bf16_rows<2>(rows, x, m.columns, out);
        else dot_bf16_rows<1>(rows, x, m.columns, out);
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t j = i; j < std::min(i + kRows / 2, pairs); ++j) output(s + t, block + j, out[t] + 2 * (j - i));
      }
    }
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

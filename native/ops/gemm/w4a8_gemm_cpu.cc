// w4a8_gemm on the cpu: int4 weights and e4m3 rows become bf16, which holds both exactly; sums of a group are f32 and meet its
// scale there, so that nothing is rounded to 8 bits on the way.
//
// Two chains of sums a result whatever the number of rows, groups in order: every call is batch invariant.
#include "ops/gemm/w4a8_gemm.h"

#include <array>
#include <cstring>
#include <utility>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/packing/cpu_layout.h"
#include "ops/gemm/f8_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gemm/w4a8_gemm_cpu.cc"
#define CULEBRA_SIMD_INTEGER_DOT
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "backends/cpu/rows-inl.h"
#include "ops/gemm/f8_dot-inl.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3_DL
HWY_PUSH_ATTRIBUTES("avx512bf16")
#endif
namespace culebra::cpu::HWY_NAMESPACE {
namespace {

inline constexpr int kTile = CpuLayout::kNTile;  // columns of a weight tile
inline constexpr int kStep = CpuLayout::kKStep;  // values of k in a word
inline constexpr int kVectors = kTile / kLanes;
inline constexpr int kMaxRows = kLanes == 16 ? 6 : 1;
inline constexpr int kChains = 2;

// Up to kMaxRows rows of a, [k_padded / kStep][rows][kStep] bf16: multiplying is one sequential read.
struct Tile {
  const uint16_t* values;
  int64_t row;
};

// The pairs of k (2 s, 2 s + 1) of each word, as bf16.
template <int s>
HWY_INLINE I32 weight_pairs(I32 words) {
  const I32Tag d;
#if HWY_TARGET <= HWY_AVX3
  // A lane of 16 bits picks by its low five: both values of the fifth give the same.
  alignas(64) static constexpr uint16_t kValues[32] = {
      0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
      0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
  const hn::Repartition<uint16_t, I32Tag> d16;
  const auto index = hn::ShiftRight<4 * s>(hn::BitCast(d16, words));
  return I32{_mm512_permutexvar_epi16(index.raw, _mm512_load_si512(kValues))};
#else
  const auto value = [&](auto shift) HWY_ATTR {
    const I32 code = hn::And(hn::ShiftRight<shift>(words), hn::Set(d, 15));
    return hn::BitCast(d, hn::ConvertTo(F32Tag(), hn::Sub(code, hn::Set(d, 8))));
  };
  const auto low = hn::ShiftRight<16>(hn::BitCast(hn::RebindToUnsigned<I32Tag>(), value(std::integral_constant<int, 4 * s>())));
  return hn::Or(hn::BitCast(d, low), value(std::integral_constant<int, 16 + 4 * s>()));
#endif
}

template <bool kNative, int s, int R>
HWY_INLINE void multiply_pairs(const uint32_t* words, const uint16_t* x, F32 (&sums)[kChains][R][kVectors]) {
  I32 w[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) w[v] = weight_pairs<s>(hn::LoadU(I32Tag(), reinterpret_cast<const int32_t*>(words) + v * kLanes));
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    int32_t pair;
    std::memcpy(&pair, x + r * kStep + 2 * s, sizeof pair);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v)
      sums[s % kChains][r][v] = dot_bf16<kNative>(sums[s % kChains][r][v], w[v], hn::Set(I32Tag(), pair));
  }
}

// product [R, kTile] = rows of a times a tile of weights.
template <bool kNative, int R>
HWY_NOINLINE void multiply(const W4A8GemmParams& p, const Tile& rows, int64_t tile, float* HWY_RESTRICT product) {
  constexpr int kAhead = 24;  // steps, 3 KB: past what the hardware prefetches across a page boundary
  const F32Tag d;
  const int64_t column = tile * kTile;
  const uint16_t* x = rows.values;
  const uint32_t* words = reinterpret_cast<const uint32_t*>(p.packed) + CpuLayout::word(column, 0, p.n_padded, p.k_padded);
  HWY_ALIGN float leaving[R * kTile];
  std::memset(product, 0, sizeof leaving);
  for (int64_t k0 = 0; k0 < p.k_padded; k0 += kW4A8Group) {
    F32 sums[kChains][R][kVectors];
#pragma GCC unroll 64
    for (int i = 0; i < kChains * R * kVectors; ++i) sums[i / (R * kVectors)][i / kVectors % R][i % kVectors] = hn::Zero(d);
    for (int64_t k = 0; k < kW4A8Group; k += kStep, words += kTile, x += R * kStep) {
      hwy::Prefetch(words + kAhead * kTile);
      hwy::Prefetch(words + kAhead * kTile + kTile / 2);
      multiply_pairs<kNative, 0, R>(words, x, sums);
      multiply_pairs<kNative, 1, R>(words, x, sums);
      multiply_pairs<kNative, 2, R>(words, x, sums);
      multiply_pairs<kNative, 3, R>(words, x, sums);
    }
    // Through memory, so that what follows asks for no register while the sums hold most of them.
#pragma GCC unroll 32
    for (int i = 0; i < R * kVectors; ++i)
      hn::Store(hn::Add(sums[0][i / kVectors][i % kVectors], sums[1][i / kVectors][i % kVectors]), d, leaving + i * kLanes);
    const auto* scales = reinterpret_cast<const float8_e4m3_t*>(p.scales) + k0 / kW4A8Group * p.n_padded + column;
    for (int v = 0; v < kTile; v += kLanes) {
      const F32 scale = load(scales + v);
      for (int r = 0; r < R; ++r) {
        float* out = product + r * kTile + v;
        hn::Store(hn::MulAdd(hn::Load(d, leaving + r * kTile + v), scale, hn::Load(d, out)), d, out);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < kTile; v += kLanes) {
      float channel[kLanes] = {};
      for (int64_t i = 0; i < kLanes && column + v + i < p.n; ++i) channel[i] = p.channel_scale[column + v + i];
      float* out = product + r * kTile + v;
      const F32 scale = hn::Mul(hn::Set(d, p.a_scale[rows.row + r]), hn::LoadU(d, channel));
      hn::Store(hn::Mul(hn::Load(d, out), scale), d, out);
    }
}

template <bool kNative, int... R>
constexpr auto kernels(std::integer_sequence<int, R...>) {
  return std::array{&multiply<kNative, R + 1>...};
}

// Row tiles of kTile columns of c.
template <class Half, bool kNative>
void multiply_strip(const W4A8GemmParams& p, const Tile& rows, int64_t count, int64_t tile) {
  static constexpr auto kMultiply = kernels<kNative>(std::make_integer_sequence<int, kMaxRows>());
  const auto run = kMultiply[static_cast<size_t>(count - 1)];
  const bool gated = p.epilogue == CUL_EPILOGUE_SILU_MUL;
  const int64_t width = gated ? p.n / 2 : p.n, column = tile * kTile, columns = std::min<int64_t>(kTile, width - column);
  HWY_ALIGN float product[kMaxRows * kTile], part[kMaxRows * kTile], up[kMaxRows][2 * kTile] = {};
  run(p, rows, tile, product);
  // The factors' columns begin anywhere in a tile, and reach into the next one.
  const int64_t up_tile = (width + column) / kTile, up_shift = (width + column) % kTile;
  for (int64_t i = 0; gated && i * kTile < up_shift + columns; ++i) {
    run(p, rows, up_tile + i, part);
    for (int64_t r = 0; r < count; ++r) std::memcpy(&up[r][i * kTile], part + r * kTile, sizeof(float) * kTile);
  }
  for (int64_t r = 0; r < count; ++r) {
    Half out[kTile];
    for (int v = 0; v < kTile; v += kLanes) {
      F32 x = hn::Load(F32Tag(), product + r * kTile + v);
      if (gated) x = hn::Mul(silu(x), hn::LoadU(F32Tag(), &up[r][up_shift + v]));
      store_f32(x, out + v);
    }
    std::memcpy(static_cast<Half*>(p.c) + (rows.row + r) * p.ldc + column, out, static_cast<size_t>(columns) * sizeof(Half));
  }
}

template <class Half, bool kNative>
void run(const W4A8GemmParams& p, ThreadPool& pool) {
  static const auto kBf16 = [] {
    std::array<uint16_t, 256> table;
    for (size_t i = 0; i < table.size(); ++i) table[i] = from_float<bfloat16_t>(to_float(float8_e4m3_t{static_cast<uint8_t>(i)})).bits;
    return table;
  }();
  const F8Rows w = f8_rows_workspace(p.m, p.k_padded);
  auto* const values = static_cast<uint16_t*>(p.workspace);
  const int64_t width = p.epilogue == CUL_EPILOGUE_SILU_MUL ? p.n / 2 : p.n;
  for (int64_t first = 0; first < p.m; first += w.rows) {
    const int64_t rows = std::min(w.rows, p.m - first), tiles = (rows + kMaxRows - 1) / kMaxRows;
    const auto tile_begin = [&](int64_t tile) { return rows * tile / tiles; };
    const auto tile_values = [&](int64_t tile) { return values + tile_begin(tile) * p.k_padded; };
    pool.parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = tile_begin(t), count = tile_begin(t + 1) - row;
        for (int64_t r = 0; r < count; ++r)
          for (int64_t k = 0; k < p.k_padded; ++k)
            tile_values(t)[(k / kStep * count + r) * kStep + k % kStep] =
                k < p.k ? kBf16[p.a[(first + row + r) * p.lda + k]] : uint16_t{0};
      }
    });
    constexpr int64_t kStripTiles = 16;  // row tiles that meet a weight tile before the next one
    const int64_t strips = (tiles + kStripTiles - 1) / kStripTiles;
    pool.parallel_for((width + kTile - 1) / kTile * strips, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t t = tiles * (i % strips) / strips; t < tiles * (i % strips + 1) / strips; ++t)
          multiply_strip<Half, kNative>(p, {tile_values(t), first + tile_begin(t)}, tile_begin(t + 1) - tile_begin(t), i / strips);
    });
  }
}

template <bool kNative>
void run(const W4A8GemmParams& p, ThreadPool& pool) {
  p.dtype == DType::f16 ? run<half_t, kNative>(p, pool) : run<bfloat16_t, kNative>(p, pool);
}

}  // namespace

void w4a8_gemm_vector(const W4A8GemmParams& p, ThreadPool& pool) {
#if HWY_TARGET == HWY_AVX3_DL
  if (native_bf16()) return run<true>(p, pool);
#endif
  run<false>(p, pool);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3_DL
HWY_POP_ATTRIBUTES
#endif
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(w4a8_gemm_vector);
void w4a8_gemm(const W4A8GemmParams& p, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(w4a8_gemm_vector)(p, pool); }
}  // namespace culebra::cpu
#endif

// fp8_gemm on the cpu: inner products along k of e4m3 rows, expanded to bf16 in registers (f8_dot-inl.h).
//
// The rows of a are expanded once; a row of b is read straight, once for every kMaxRows rows of a. Sums of kFp8Block values (where scales
// belong to a token or a tensor: of kPlainBlock) leave the registers scaled, for one vector of totals per result; the lanes
// of a total are added at the end. That order depends on k alone: every call is batch invariant.
#include "ops/gemm/fp8_gemm.h"

#include <array>
#include <cstring>
#include <utility>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/f8_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gemm/fp8_gemm_cpu.cc"
#define CULEBRA_SIMD_INTEGER_DOT
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "backends/cpu/rows-inl.h"
#include "ops/gemm/f8_dot-inl.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3_DL
HWY_PUSH_ATTRIBUTES("avx512bf16")
#endif
namespace culebra::cpu::HWY_NAMESPACE {
namespace {

inline constexpr int64_t kStrip = 32;  // columns of c that a strip of rows meets before the next
inline constexpr int kMaxRows = kLanes == 16 ? 12 : 4;
inline constexpr int64_t kPlainBlock = 512;
// Values of k that all columns of a strip meet before the next: kMaxRows rows of them stay in the first-level cache. Fewer rows take
// all of k, so that each row of b is one stream.
inline constexpr int64_t kDepth = 1024;
inline constexpr int64_t kStreamRows = 2;

// Columns side by side: enough sums to keep the multipliers busy, and few enough for the registers.
template <int R>
inline constexpr int kColumns = kLanes == 16 ? (R == 1 ? 8 : R <= 3 ? 4 : 2) : (R == 1 ? 4 : 2);

// Up to kMaxRows rows of a, expanded: [k / kF8Step][2][rows][kLanes] pairs, so that multiplying is one sequential read.
struct Tile {
  const int32_t* pairs;
  int64_t row;
};

// sums += rows of a times rows of b, kF8Step values of k.
template <bool kNative, int R, int C>
HWY_INLINE void step(const int32_t* x, const uint8_t* const (&b)[C], int64_t k, F32 (&sums)[R][C]) {
#pragma GCC unroll 8
  for (int j = 0; j < C; ++j) {
    const F8Pairs w = expand_f8(b[j] + k);
#pragma GCC unroll 32
    for (int i = 0; i < 2 * R; ++i)
      sums[i % R][j] = dot_bf16<kNative>(sums[i % R][j], w.v[i / R], hn::Load(I32Tag(), x + i * kLanes));
  }
}

// totals [kColumns][R] += rows of a times kColumns rows of b, for k in [begin, end).
template <bool kNative, int R>
HWY_NOINLINE void multiply(const Fp8GemmParams& p, const Tile& tile, int64_t column, int64_t begin, int64_t end,
                           float* HWY_RESTRICT totals) {
  constexpr int C = kColumns<R>;
  const F32Tag d;
  const bool scaled = p.scaling == CUL_FP8_SCALING_BLOCK128;
  const int64_t block = scaled ? kFp8Block : kPlainBlock;
  const uint8_t* b[C];
  for (int j = 0; j < C; ++j) b[j] = p.b + std::min(column + j, p.n - 1) * p.ldb;
  const int32_t* x = tile.pairs + begin / 2 * R;
  HWY_ALIGN float leaving[R * C * kLanes];
  for (int64_t k0 = begin; k0 < end; k0 += block) {
    F32 sums[R][C];
#pragma GCC unroll 32
    for (int i = 0; i < R * C; ++i) sums[i / C][i % C] = hn::Zero(d);
    const int64_t stop = std::min(k0 + block, end);
    int64_t k = k0;
    for (; k + kF8Step <= stop; k += kF8Step, x += kF8Step / 2 * R) step<kNative>(x, b, k, sums);
    if (k < stop) {
      uint8_t tail[C][kF8Step] = {};
      const uint8_t* tails[C];
      for (int j = 0; j < C; ++j) {
        std::memcpy(tail[j], b[j] + k, static_cast<size_t>(stop - k));
        tails[j] = tail[j];
      }
      step<kNative>(x, tails, 0, sums);
    }
    // Through memory, so that what follows asks for no register while the sums hold most of them.
#pragma GCC unroll 32
    for (int i = 0; i < R * C; ++i) hn::Store(sums[i / C][i % C], d, leaving + i * kLanes);
    float b_scale[C];
    for (int j = 0; j < C; ++j)
      b_scale[j] = scaled ? p.b_scale[std::min(column + j, p.n - 1) / kFp8Block * p.b_scale_row + k0 / kFp8Block] : 1.0f;
    for (int r = 0; r < R; ++r) {
      const float a_scale = scaled ? p.a_scale[(tile.row + r) * p.a_scale_row + k0 / kFp8Block] : 1.0f;
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) {
        float* total = totals + (j * R + r) * kLanes;
        const F32 sum = hn::Load(d, leaving + (r * C + j) * kLanes);
        hn::Store(hn::MulAdd(sum, hn::Set(d, a_scale * b_scale[j]), hn::Load(d, total)), d, total);
      }
    }
  }
}

// A tile of R rows times the columns of a strip.
template <bool kNative, int R>
void multiply_tile(const Fp8GemmParams& p, const Tile& tile, int64_t column, int64_t columns, float* totals) {
  const int64_t depth = R <= kStreamRows ? p.k : kDepth;
  for (int64_t k = 0; k < p.k; k += depth)
    for (int64_t j = 0; j < columns; j += kColumns<R>)
      multiply<kNative, R>(p, tile, column + j, k, std::min(k + depth, p.k), totals + j * R * kLanes);
}

template <bool kNative, int... R>
constexpr auto kernels(std::integer_sequence<int, R...>) {
  return std::array{&multiply_tile<kNative, R + 1>...};
}

// A row of c = its totals, `step` apart, times the scales of rows and columns, plus bias.
template <class T>
void finish(const Fp8GemmParams& p, int64_t row, int64_t column, int64_t columns, const float* totals, int64_t step) {
  HWY_ALIGN float sums[kStrip];
  for (int64_t j = 0; j < columns; j += 4) {
    const auto total = [&](int64_t i) HWY_ATTR { return hn::Load(F32Tag(), totals + (j + i) * step); };
    sum_of_lanes(total(0), total(1), total(2), total(3), sums + j);
  }
  T* c = static_cast<T*>(p.c) + row * p.ldc + column;
  const bool scaled = p.scaling != CUL_FP8_SCALING_BLOCK128;
  for (int64_t j = 0; j < columns; ++j) {
    float x = sums[j];
    if (scaled) x *= p.a_scale[row * p.a_scale_row] * p.b_scale[(column + j) * p.b_scale_row];
    if (p.bias) x += to_float(static_cast<const T*>(p.bias)[column + j]);
    c[j] = from_float<T>(x);
  }
}

template <bool kNative>
void run(const Fp8GemmParams& p, ThreadPool& pool) {
  constexpr auto kMultiply = kernels<kNative>(std::make_integer_sequence<int, kMaxRows>());
  const F8Rows w = f8_rows_workspace(p.m, p.k);
  auto* const expanded = static_cast<int32_t*>(p.workspace);
  for (int64_t first = 0; first < p.m; first += w.rows) {
    const int64_t rows = std::min(w.rows, p.m - first), tiles = (rows + kMaxRows - 1) / kMaxRows;
    const auto tile_begin = [&](int64_t tile) { return rows * tile / tiles; };
    const auto tile_pairs = [&](int64_t tile) { return expanded + tile_begin(tile) * (w.k_padded / 2); };
    pool.parallel_for(tiles, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = tile_begin(t), count = tile_begin(t + 1) - row;
        int32_t* to = tile_pairs(t);
        for (int64_t k = 0; k < w.k_padded; k += kF8Step, to += kF8Step / 2 * count)
          for (int64_t r = 0; r < count; ++r) {
            HWY_ALIGN uint8_t bytes[kF8Step] = {};
            if (k < p.k) std::memcpy(bytes, p.a + (first + row + r) * p.lda + k, static_cast<size_t>(std::min<int64_t>(kF8Step, p.k - k)));
            const F8Pairs x = expand_f8(bytes);
            hn::Store(x.v[0], I32Tag(), to + r * kLanes);
            hn::Store(x.v[1], I32Tag(), to + (count + r) * kLanes);
          }
      }
    });
    constexpr int64_t kStripTiles = 8;
    const int64_t strips = (tiles + kStripTiles - 1) / kStripTiles;
    pool.parallel_for((p.n + kStrip - 1) / kStrip * strips, 1, [&](int64_t begin, int64_t end) {
      HWY_ALIGN float totals[kMaxRows * kStrip * kLanes];
      for (int64_t i = begin; i < end; ++i) {
        const int64_t strip = i % strips, column = i / strips * kStrip, columns = std::min(kStrip, p.n - column);
        for (int64_t t = tiles * strip / strips; t < tiles * (strip + 1) / strips; ++t) {
          const int64_t row = tile_begin(t), count = tile_begin(t + 1) - row;
          std::memset(totals, 0, static_cast<size_t>(count * kStrip * kLanes) * sizeof(float));
          kMultiply[static_cast<size_t>(count - 1)](p, {tile_pairs(t), first + row}, column, columns, totals);
          for (int64_t r = 0; r < count; ++r)
            with_float_type(p.dtype, [&](auto tag) {
              finish<decltype(tag)>(p, first + row + r, column, columns, totals + r * kLanes, count * kLanes);
            });
        }
      }
    });
  }
}

}  // namespace

void fp8_gemm_vector(const Fp8GemmParams& p, ThreadPool& pool) {
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
HWY_EXPORT(fp8_gemm_vector);
void fp8_gemm(const Fp8GemmParams& p, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(fp8_gemm_vector)(p, pool); }
}  // namespace culebra::cpu
#endif

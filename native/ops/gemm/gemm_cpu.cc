// gemm on the cpu: f32 arithmetic for f32, f16 and bf16 operands.
//
// Many rows: 32 rows of b are transposed, a block of k at a time, into a panel [k, 32] that every row of a then meets, by a
// kernel that keeps a tile of results in registers (outer products). Sums run in the order of k, block by block.
// Few rows: b is read once, straight, and each result is a sum of vectors along k (inner products). The two orders differ in
// their last bits, so a batch-invariant call takes the first way for any number of rows.
#include "ops/gemm/gemm.h"

#include <array>
#include <cstring>
#include <utility>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/gemm_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gemm/gemm_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "backends/cpu/transpose-inl.h"
#include "backends/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
namespace {

inline constexpr int kTile = 32;                 // columns of a panel
inline constexpr int kVectors = kTile / kLanes;
inline constexpr int kMaxRows = kLanes == 16 ? 12 : kLanes == 8 ? 3 : 1;  // of a register tile
// A strip of rows meets a few panels, block of k by block of k: the block's rows stay in the second-level cache for all of them.
inline constexpr int64_t kStripRows = 192;
inline constexpr int64_t kPanels = 8;
inline constexpr int64_t kFewRows = 4;           // up to here b is read straight
inline constexpr int kDotColumns = 4;            // rows of b read side by side

// Rows [first, first + rows) of a as f32 [blocks, rows, kGemmBlock], zeros beyond k.
struct Rows {
  float* x;
  int64_t first, rows, blocks;

  float* at(int64_t block, int64_t row) const { return x + (block * rows + row) * kGemmBlock; }
};

template <class T>
void convert_block(const GemmParams& p, const Rows& a, int64_t row, int64_t block) {
  const T* from = static_cast<const T*>(p.a) + (a.first + row) * p.lda + block * kGemmBlock;
  float* to = a.at(block, row);
  const int64_t count = std::min<int64_t>(kGemmBlock, p.k - block * kGemmBlock);
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) store_f32(load_f32(F32Tag(), from + k), to + k);
  for (; k < count; ++k) to[k] = to_float(from[k]);
  std::memset(to + count, 0, static_cast<size_t>(kGemmBlock - count) * sizeof(float));
}

// x = act(x + bias), written as out_dtype.
template <class T, class Out>
void finish(const GemmParams& p, int64_t row, int64_t column, int64_t columns, const float* sums) {
  Out out[kTile];
  HWY_ALIGN float bias[kTile] = {};
  for (int64_t i = 0; p.bias && i < columns; ++i) bias[i] = to_float(static_cast<const T*>(p.bias)[column + i]);
  for (int64_t i = 0; i < columns; i += kLanes) {
    F32 x = hn::Add(hn::LoadU(F32Tag(), sums + i), hn::Load(F32Tag(), bias + i));
    if (p.act == CUL_ACT_SILU) x = silu(x);
    if (p.act == CUL_ACT_GELU) x = gelu(x);
    store_f32(x, out + i);
  }
  std::memcpy(static_cast<Out*>(p.c) + row * p.ldc + column, out, static_cast<size_t>(columns) * sizeof(Out));
}

template <class T>
void finish(const GemmParams& p, int64_t row, int64_t column, int64_t columns, const float* sums) {
  if (p.out_dtype == DType::f32) finish<T, float>(p, row, column, columns, sums);
  else if (p.out_dtype == DType::f16) finish<T, half_t>(p, row, column, columns, sums);
  else finish<T, bfloat16_t>(p, row, column, columns, sums);
}

// ------------------------------------------------------------------------------------------------------ many rows

// panel [count, kTile] = columns of b transposed; columns beyond the matrix are 0.
template <class T>
void transpose_panel(const GemmParams& p, int64_t column, int64_t columns, int64_t k0, int64_t count, float* panel) {
  const T* b = static_cast<const T*>(p.b) + column * p.ldb + k0;
  // The next block of k: 32 short runs of memory are more than the hardware follows. To the second-level cache, since rows
  // a power of two apart share few places in the first.
  for (int64_t n = 0; n < columns; ++n)
    for (int64_t byte = 0; byte < count * int64_t{sizeof(T)}; byte += 64)
      __builtin_prefetch(reinterpret_cast<const std::byte*>(b + n * p.ldb + count) + byte, 0, 2);
  for (int64_t n = 0; n < kTile; n += kLanes) {
    const auto rows = static_cast<int>(std::clamp<int64_t>(columns - n, 0, kLanes));
    for (int64_t k = 0; k < count; k += kLanes) {
      float* to = panel + k * kTile + n;
      if (rows == kLanes && k + kLanes <= count) {
        transpose_block(b + n * p.ldb + k, p.ldb, to, kTile);
        continue;
      }
      T part[kLanes * kLanes] = {};
      for (int i = 0; i < rows; ++i)
        std::memcpy(part + i * kLanes, b + (n + i) * p.ldb + k, static_cast<size_t>(std::min<int64_t>(kLanes, count - k)) * sizeof(T));
      transpose_block(part, kLanes, to, kTile);
    }
  }
}

// sums [R, kTile] += R rows of a times a panel.
template <int R>
HWY_NOINLINE void multiply(const float* HWY_RESTRICT a, const float* HWY_RESTRICT panel, int64_t count,
                           float* HWY_RESTRICT sums) {
  const F32Tag d;
  F32 tile[R][kVectors];
#pragma GCC unroll 32
  for (int i = 0; i < R * kVectors; ++i) tile[i / kVectors][i % kVectors] = hn::Zero(d);
  for (int64_t k = 0; k < count; ++k) {
    F32 b[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) b[v] = hn::Load(d, panel + k * kTile + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F32 x = hn::Set(d, a[r * kGemmBlock + k]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) tile[r][v] = hn::MulAdd(x, b[v], tile[r][v]);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < R * kVectors; ++i) {
    float* to = sums + i * kLanes;
    hn::Store(hn::Add(hn::Load(d, to), tile[i / kVectors][i % kVectors]), d, to);
  }
}

template <int... R>
constexpr auto kernels(std::integer_sequence<int, R...>) {
  return std::array{&multiply<R + 1>...};
}
inline constexpr auto kMultiply = kernels(std::make_integer_sequence<int, kMaxRows>());

// Panels [first, last) of the columns times rows [begin, end).
template <class T>
void multiply_strip(const GemmParams& p, const Rows& a, int64_t first, int64_t last, int64_t begin, int64_t end) {
  HWY_ALIGN float panel[kGemmBlock * kTile], sums[kPanels * kStripRows * kTile];
  const int64_t rows = end - begin, row_tiles = (rows + kMaxRows - 1) / kMaxRows;
  std::memset(sums, 0, static_cast<size_t>((last - first) * rows * kTile) * sizeof(float));
  for (int64_t block = 0; block < a.blocks; ++block) {
    const int64_t k0 = block * kGemmBlock, count = std::min<int64_t>(kGemmBlock, p.k - k0);
    for (int64_t tile = first; tile < last; ++tile) {
      transpose_panel<T>(p, tile * kTile, std::min<int64_t>(kTile, p.n - tile * kTile), k0, count, panel);
      for (int64_t t = 0; t < row_tiles; ++t) {
        const int64_t row = rows * t / row_tiles, next = rows * (t + 1) / row_tiles;
        kMultiply[static_cast<size_t>(next - row - 1)](a.at(block, begin + row), panel, count, sums + ((tile - first) * rows + row) * kTile);
      }
    }
  }
  for (int64_t tile = first; tile < last; ++tile)
    for (int64_t row = 0; row < rows; ++row)
      finish<T>(p, a.first + begin + row, tile * kTile, std::min<int64_t>(kTile, p.n - tile * kTile),
                sums + ((tile - first) * rows + row) * kTile);
}

// ------------------------------------------------------------------------------------------------------- few rows

// R rows of a times kDotColumns rows of b.
template <class T, int R>
void dot(const GemmParams& p, const Rows& a, int64_t column) {
  const F32Tag d;
  const T* b[kDotColumns];
  for (int j = 0; j < kDotColumns; ++j) b[j] = static_cast<const T*>(p.b) + std::min(column + j, p.n - 1) * p.ldb;
  F32 sums[R][kDotColumns];
#pragma GCC unroll 16
  for (int i = 0; i < R * kDotColumns; ++i) sums[i / kDotColumns][i % kDotColumns] = hn::Zero(d);
  const auto step = [&](const float* x, int j, F32 w) HWY_ATTR {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r][j] = hn::MulAdd(hn::Load(d, x + r * kGemmBlock), w, sums[r][j]);
  };
  for (int64_t block = 0; block < a.blocks; ++block) {
    const float* x = a.at(block, 0);
    const int64_t k0 = block * kGemmBlock, count = std::min<int64_t>(kGemmBlock, p.k - k0);
    int64_t k = 0;
    for (; k + kLanes <= count; k += kLanes)
#pragma GCC unroll 16
      for (int j = 0; j < kDotColumns; ++j) step(x + k, j, load_f32(d, b[j] + k0 + k));
    if (k == count) continue;
    for (int j = 0; j < kDotColumns; ++j) {
      T tail[kLanes] = {};
      std::memcpy(tail, b[j] + k0 + k, static_cast<size_t>(count - k) * sizeof(T));
      step(x + k, j, load_f32(d, tail));
    }
  }
  HWY_ALIGN float results[kLanes] = {};
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < kDotColumns; ++j) results[j] = hn::GetLane(hn::SumOfLanes(d, sums[r][j]));
    finish<T>(p, a.first + r, column, std::min<int64_t>(kDotColumns, p.n - column), results);
  }
}

template <class T>
void run(const GemmParams& p, ThreadPool& pool) {
  const GemmWorkspace w = gemm_workspace(p.m, p.k);
  for (int64_t first = 0; first < p.m; first += w.rows) {
    const Rows a{static_cast<float*>(p.workspace), first, std::min(w.rows, p.m - first), w.blocks};
    pool.parallel_for(a.rows * a.blocks, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) convert_block<T>(p, a, i % a.rows, i / a.rows);
    });
    if (p.m <= kFewRows && !p.batch_invariant) {
      constexpr std::array kDot{&dot<T, 1>, &dot<T, 2>, &dot<T, 3>, &dot<T, 4>};
      pool.parallel_for((p.n + kDotColumns - 1) / kDotColumns, 8, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) kDot[static_cast<size_t>(p.m - 1)](p, a, i * kDotColumns);
      });
      return;
    }
    const int64_t strips = (a.rows + kStripRows - 1) / kStripRows, tiles = (p.n + kTile - 1) / kTile;
    const int64_t panels = std::clamp<int64_t>(tiles * strips / (4 * pool.size()), 1, kPanels);  // fewer where threads are many
    pool.parallel_for((tiles + panels - 1) / panels * strips, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t strip = i % strips, tile = i / strips * panels;
        multiply_strip<T>(p, a, tile, std::min(tile + panels, tiles), a.rows * strip / strips, a.rows * (strip + 1) / strips);
      }
    });
  }
}

}  // namespace

void gemm_vector(const GemmParams& p, ThreadPool& pool) {
  if (p.dtype == DType::f32) run<float>(p, pool);
  else if (p.dtype == DType::f16) run<half_t>(p, pool);
  else run<bfloat16_t>(p, pool);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(gemm_vector);
void gemm(const GemmParams& p, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(gemm_vector)(p, pool); }
}  // namespace culebra::cpu
#endif

// w4a16_gemm on the cpu: fixed-point activations, integer dot products.
//
// A block of one row's activations (a group of weights, at most 128 values of k) becomes 16-bit integers with one f32 scale:
// x = sx q, |q| <= 32767. With w = s (c - z), c the 4-bit code,
//
//   sum_k x w = sx s (sum_k q c - z sum_k q)                 per block, exactly, in 32-bit integers: |sum| < 128 * 15 * 2^15 < 2^26
//
// and the blocks are added in f32 in the order of k. Rounding x costs at most 2^-16 of the block's largest |x|, which is 1.8e-4
// of the block's rms even when one value holds all of its energy: an order below the contract's 2e-3.
//
// A row's result depends on that row alone, by the same operations whatever tile it falls in: every call is batch
// invariant, and independent of the number of threads.
#include "ops/gemm/w4a16_gemm.h"

#include <array>
#include <cstring>
#include <utility>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/packing/cpu_layout.h"
#include "ops/gemm/w4a16_gemm_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gemm/w4a16_gemm_cpu.cc"
#define CULEBRA_SIMD_INTEGER_DOT
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/cache_control.h"
#include "ops/gemm/fixed_point-inl.h"

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3_DL
HWY_PUSH_ATTRIBUTES("avx512vnni")  // Highway asks the processor for it, but not the compiler
#endif
namespace culebra::cpu::HWY_NAMESPACE {
namespace {

inline constexpr int kTile = CpuLayout::kNTile;        // columns of a weight tile
inline constexpr int kStep = CpuLayout::kKStep;        // values of k in a word
inline constexpr int kVectors = kTile / kLanes;        // vectors of 32-bit sums per row of a tile
// Rows multiplied at once: their sums and a tile's operands fill the registers.
inline constexpr int kMaxRows = kLanes == 16 ? 12 : kLanes == 8 ? 2 : 1;
// A strip of row tiles meets a panel of weight tiles, chunk of k by chunk of k: the chunk's activations fill a part of the second-level
// cache, a tile's weights of the chunk the first-level one.
inline constexpr int64_t kStripTiles = 8;
inline constexpr int64_t kStripRows = kStripTiles * kMaxRows;
inline constexpr int64_t kPanelTiles = 16;
inline constexpr int64_t kChunkElems = int64_t{96} << 10;
inline constexpr int64_t kQuantizeGrain = 64;  // blocks worth a thread

// Rows [first, first + rows) of a, quantized: scales and sums [blocks, rows]; q tile by tile of at most kMaxRows rows, each
// [k_padded / kStep, rows of the tile, kStep], so that multiplying a tile is one sequential read.
struct Activations {
  int16_t* q;
  float* scales;
  int32_t* sums;
  int64_t first, rows, blocks, block, k_padded;

  int64_t tiles() const { return (rows + kMaxRows - 1) / kMaxRows; }
  int64_t tile_begin(int64_t tile) const { return rows * tile / tiles(); }
  int16_t* at(int64_t tile, int64_t k) const {
    const int64_t begin = tile_begin(tile);
    return q + begin * k_padded + k * (tile_begin(tile + 1) - begin);
  }
};

Activations workspace(const W4A16GemmParams& p, const W4A16Workspace& w, int64_t first) {
  auto* base = static_cast<std::byte*>(p.workspace);
  return {reinterpret_cast<int16_t*>(base + w.q), reinterpret_cast<float*>(base + w.scales),
          reinterpret_cast<int32_t*>(base + w.sums), first, std::min(w.rows, p.m - first), w.blocks, w.block, p.k_padded};
}

// One block of one row in f16 or bf16; columns that the packed weights only pad are 0.
template <class Half>
void gather(const W4A16GemmParams& p, int64_t row, int64_t k0, int64_t count, Half* x) {
  const Half* a = static_cast<const Half*>(p.a) + row * p.lda;
  if (p.perm) {
    for (int64_t i = 0; i < count; ++i)
      if (const int32_t k = p.perm[k0 + i]; k >= 0) x[i] = a[k];
  } else if (k0 < p.k) {
    std::memcpy(x, a + k0, static_cast<size_t>(std::min(count, p.k - k0)) * sizeof(Half));
  }
}

template <class Half>
void quantize_tile(const W4A16GemmParams& p, const Activations& a, int64_t tile, int64_t block) {
  const int64_t begin = a.tile_begin(tile), rows = a.tile_begin(tile + 1) - begin;
  const int64_t k0 = block * a.block, count = std::min(a.block, p.k_padded - k0);
  int16_t* to = a.at(tile, k0);
  for (int64_t r = 0; r < rows; ++r) {
    HWY_ALIGN Half x[kMaxActivationBlock] = {};
    int16_t q[kMaxActivationBlock];
    gather(p, a.first + begin + r, k0, count, x);
    quantize_block(x, count, q, &a.scales[block * a.rows + begin + r], &a.sums[block * a.rows + begin + r]);
    for (int64_t k = 0; k < count; k += kStep) std::memcpy(to + k * rows + r * kStep, q + k, kStep * sizeof(int16_t));
  }
}

// The pairs of k (2 s, 2 s + 1) of a word's eight.
template <int s>
HWY_INLINE I16 pairs(const uint32_t* words) {
  const hn::RebindToUnsigned<I16Tag> d;
  const auto line = hn::LoadU(d, reinterpret_cast<const uint16_t*>(words));
  const auto shifted = hn::ShiftRight<4 * s>(line);
  if constexpr (s == 3) return hn::BitCast(I16Tag(), shifted);
  else return hn::BitCast(I16Tag(), hn::And(shifted, hn::Set(d, 15)));
}

// Few rows would leave the multipliers waiting for their own sums: they get several sums, added at the end of a block.
template <int R>
inline constexpr int kChains = R * kVectors >= 8 ? 1 : R * kVectors >= 4 ? 2 : 4;

template <int s, int R>
HWY_INLINE void multiply_pairs(const uint32_t* words, const int16_t* q, I32 (&sums)[kChains<R>][R][kVectors]) {
  I16 w[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) w[v] = pairs<s>(words + v * kLanes);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    int32_t pair;
    std::memcpy(&pair, q + r * kStep + 2 * s, sizeof pair);
    const I16 x = hn::BitCast(I16Tag(), hn::Set(I32Tag(), pair));
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sums[s % kChains<R>][r][v] = dot_pairs(sums[s % kChains<R>][r][v], w[v], x);
  }
}

// Blocks [begin, end) of k: product [R, kTile] += a tile of R rows times a tile of weights, product's rows `stride` apart.
template <int R>
HWY_NOINLINE void multiply(const W4A16GemmParams& p, const Activations& a, int64_t row_tile, int64_t tile, int64_t begin, int64_t end,
                           float* HWY_RESTRICT product, int64_t stride) {
  constexpr int kAhead = 24;  // steps, 3 KB: past what the hardware prefetches across a page boundary
  const F32Tag df;
  const I32Tag di;
  const hn::Rebind<uint8_t, I32Tag> d8;
  const int64_t column = tile * kTile, row = a.tile_begin(row_tile);
  const int16_t* q = a.at(row_tile, begin * a.block);
  const uint32_t* words =
      reinterpret_cast<const uint32_t*>(p.packed) + CpuLayout::word(column, begin * a.block, p.n_padded, p.k_padded);

  HWY_ALIGN int32_t totals[R * kTile];

  for (int64_t block = begin; block < end; ++block) {
    const int64_t k0 = block * a.block;
    const int64_t steps = std::min(a.block, p.k_padded - k0) / kStep;
    const int64_t group = k0 / p.group * p.n_padded + column;
    const int32_t* q_sums = a.sums + block * a.rows + row;
    const float* q_scales = a.scales + block * a.rows + row;

    // The zero point's term is where the sums begin.
    I32 sums[kChains<R>][R][kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      const I32 zero = p.zeros ? hn::PromoteTo(di, hn::LoadU(d8, p.zeros + group + v * kLanes)) : hn::Set(di, 8);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        sums[0][r][v] = hn::Mul(zero, hn::Set(di, -q_sums[r]));
#pragma GCC unroll 4
        for (int chain = 1; chain < kChains<R>; ++chain) sums[chain][r][v] = hn::Zero(di);
      }
    }

    for (int64_t step = 0; step < steps; ++step, words += kTile, q += R * kStep) {
      hwy::Prefetch(words + kAhead * kTile);
      hwy::Prefetch(words + kAhead * kTile + kTile / 2);
      multiply_pairs<0, R>(words, q, sums);
      multiply_pairs<1, R>(words, q, sums);
      multiply_pairs<2, R>(words, q, sums);
      multiply_pairs<3, R>(words, q, sums);
    }

    // Through memory, so that what follows asks for no register while the sums hold most of them.
#pragma GCC unroll 32
    for (int i = 0; i < R * kVectors; ++i) {
      I32 sum = sums[0][i / kVectors][i % kVectors];
#pragma GCC unroll 4
      for (int chain = 1; chain < kChains<R>; ++chain) sum = hn::Add(sum, sums[chain][i / kVectors][i % kVectors]);
      hn::Store(sum, di, totals + i * kLanes);
    }
    for (int v = 0; v < kTile; v += kLanes) {
      const int64_t at = group + v;
      const F32 scale = p.scale_dtype == DType::f16 ? load_f32(df, static_cast<const half_t*>(p.scales) + at)
                                                    : load_f32(df, static_cast<const bfloat16_t*>(p.scales) + at);
      for (int r = 0; r < R; ++r) {
        const F32 scaled = hn::Mul(hn::ConvertTo(df, hn::Load(di, totals + r * kTile + v)), hn::Set(df, q_scales[r]));
        float* to = product + r * stride + v;
        hn::StoreU(hn::MulAdd(scaled, scale, hn::LoadU(df, to)), df, to);
      }
    }
  }
}

// A tile's bias as f32, zeros where there is none.
template <class Half>
void load_bias(const W4A16GemmParams& p, int64_t column, int64_t columns, float* bias) {
  std::memset(bias, 0, sizeof(float) * kTile);
  if (!p.bias) return;
  for (int64_t i = 0; i < columns; ++i) bias[i] = to_float(static_cast<const Half*>(p.bias)[column + i]);
}

template <int... R>
constexpr auto kernels(std::integer_sequence<int, R...>) {
  return std::array{&multiply<R + 1>...};
}
inline constexpr auto kMultiply = kernels(std::make_integer_sequence<int, kMaxRows>());

// c [rows of the row tiles begin .. end, columns first .. first + columns]. The sums of a panel of weight tiles and a strip of rows
// grow block of k by block of k, so that the activations of a chunk of k stay in the second-level cache for the whole panel,
// and a tile's weights for the whole strip.
template <class Half>
void multiply_panel(const W4A16GemmParams& p, const Activations& a, int64_t first, int64_t columns, int64_t begin, int64_t end) {
  const F32Tag d;
  const bool gated = p.epilogue == CUL_EPILOGUE_SILU_MUL;
  // silu_mul: the factors' columns begin anywhere in a tile.
  const int64_t up = p.n / 2 + first, up_tile = up / kTile;
  const int64_t tiles = (columns + kTile - 1) / kTile;
  const int64_t up_tiles = gated ? (up + columns + kTile - 1) / kTile - up_tile : 0;
  const int64_t first_row = a.tile_begin(begin), rows = a.tile_begin(end) - first_row;
  const int64_t stride = (tiles + up_tiles) * kTile;
  HWY_ALIGN float product[kStripRows * (kPanelTiles + 1) * kTile];  // silu_mul: half of the tiles are up's, which may begin inside one
  std::memset(product, 0, sizeof(float) * static_cast<size_t>(rows * stride));

  const int64_t chunk = std::max<int64_t>(kChunkElems / (rows * a.block), 1);
  for (int64_t block = 0; block < a.blocks; block += chunk) {
    for (int64_t i = 0; i < tiles + up_tiles; ++i) {
      const int64_t tile = i < tiles ? first / kTile + i : up_tile + i - tiles;
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = a.tile_begin(t);
        kMultiply[static_cast<size_t>(a.tile_begin(t + 1) - row - 1)](p, a, t, tile, block, std::min(block + chunk, a.blocks),
                                                                      product + (row - first_row) * stride + i * kTile, stride);
      }
    }
  }

  for (int64_t column = 0; column < columns; column += kTile) {
    const int64_t count = std::min<int64_t>(kTile, columns - column);
    HWY_ALIGN float bias[kTile], up_bias[kTile];
    load_bias<Half>(p, first + column, count, bias);
    if (gated) load_bias<Half>(p, up + column, count, up_bias);
    for (int64_t r = 0; r < rows; ++r) {
      const float* sums = product + r * stride + column;
      const float* factors = product + r * stride + tiles * kTile + up % kTile + column;
      Half out[kTile];
      for (int64_t v = 0; v < kTile; v += kLanes) {
        F32 x = hn::Add(hn::Load(d, sums + v), hn::Load(d, bias + v));
        if (p.epilogue != CUL_EPILOGUE_NONE) x = silu(x);
        if (gated) x = hn::Mul(x, hn::Add(hn::LoadU(d, factors + v), hn::Load(d, up_bias + v)));
        store_f32(x, out + v);
      }
      std::memcpy(static_cast<Half*>(p.c) + (a.first + first_row + r) * p.ldc + first + column, out, static_cast<size_t>(count) * sizeof(Half));
    }
  }
}

template <class Half>
void run(const W4A16GemmParams& p, ThreadPool& pool) {
  const W4A16Workspace w = w4a16_gemm_workspace(p.m, p.k_padded, p.group);
  const int64_t width = p.epilogue == CUL_EPILOGUE_SILU_MUL ? p.n / 2 : p.n;
  for (int64_t first = 0; first < p.m; first += w.rows) {
    const Activations a = workspace(p, w, first);
    pool.parallel_for(a.tiles() * a.blocks, kQuantizeGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) quantize_tile<Half>(p, a, i / a.blocks, i % a.blocks);
    });
    // Wide panels read activations less often; narrower ones where the threads would not all get several.
    const int64_t strips = (a.tiles() + kStripTiles - 1) / kStripTiles;
    const int64_t widest = p.epilogue == CUL_EPILOGUE_SILU_MUL ? kPanelTiles / 2 : kPanelTiles;
    const int64_t panel = std::clamp<int64_t>(width * strips / (kTile * 4 * pool.size()), 1, widest) * kTile;
    const int64_t panels = (width + panel - 1) / panel;
    pool.parallel_for(panels * strips, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t column = i / strips * panel, strip = i % strips;
        multiply_panel<Half>(p, a, column, std::min(panel, width - column), a.tiles() * strip / strips, a.tiles() * (strip + 1) / strips);
      }
    });
  }
}

}  // namespace

void w4a16_gemm_vector(const W4A16GemmParams& p, ThreadPool& pool) {
  if (p.dtype == DType::f16) run<half_t>(p, pool);
  else run<bfloat16_t>(p, pool);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3_DL
HWY_POP_ATTRIBUTES
#endif
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(w4a16_gemm_vector);
void w4a16_gemm(const W4A16GemmParams& p, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(w4a16_gemm_vector)(p, pool); }
}  // namespace culebra::cpu
#endif

// w8a16_gemm, w6a16_gemm, w6a8_gemm and w4a16_sparse24_gemm on the cpu: weights are taken apart in registers (CPU.md).
//
// Integer weights meet 16-bit integers: a block of one row's half activations (a group of weights, at most 128 k) becomes x = sx q, as in
// w4a16_gemm; 8-bit activations are such integers already. With w = s (c - z), c the code,
//
//   sum_k x w = sx s (sum_k q c - z sum_k q)       per block, exactly, in 32-bit integers: 128 * 255 * 32767 < 2^30
//
// f8e4m3 weights become f32, which holds them and the products with halves exactly enough: one rounding per addition.
//
// Blocks are added in f32 in the order of k. A row's result depends on that row alone, by the same operations whatever tile it
// falls in: every call is batch invariant, and independent of the number of threads.
#include "ops/gemm/quantized_gemm.h"

#include <array>
#include <cstring>
#include <utility>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/packing/cpu_layout.h"
#include "ops/gemm/quantized_gemm_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gemm/quantized_gemm_cpu.cc"
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

inline constexpr int kTile = CpuByteLayout::kNTile;  // columns of a weight tile, in every layout
inline constexpr int kVectors = kTile / kLanes;      // vectors of 32-bit sums per row of a tile
// Rows multiplied at once: their sums and a tile's operands fill the registers.
inline constexpr int kMaxRows = kLanes == 16 ? 12 : kLanes == 8 ? 2 : 1;
// Row tiles that meet one weight tile before the next one: the weights stay in the second-level cache.
inline constexpr int64_t kStripTiles = 8;

using U16Tag = hn::RebindToUnsigned<I16Tag>;
using U16 = hn::Vec<U16Tag>;
HWY_INLINE U16 load_words(const uint32_t* words) { return hn::LoadU(U16Tag(), reinterpret_cast<const uint16_t*>(words)); }
template <int bits>
HWY_INLINE U16 shift(U16 x) {
  if constexpr (bits > 0) return hn::ShiftLeft<bits>(x);
  else if constexpr (bits < 0) return hn::ShiftRight<-bits>(x);
  else return x;
}

// A way to take weights apart: a step of a tile is kRows of k in kWords words, kOperands vectors per vector of columns, each multiplied
// by one 32-bit X of a row: a pair of 16-bit integers, or an f32.
struct PairsOfIntegers {
  using X = int32_t;
  using Sum = I32;
  HWY_INLINE static Sum zero() { return hn::Zero(I32Tag()); }
  HWY_INLINE static I16 broadcast(X x) { return hn::BitCast(I16Tag(), hn::Set(I32Tag(), x)); }
  HWY_INLINE static Sum multiply_add(Sum sum, I16 w, I16 x) { return dot_pairs(sum, w, x); }
};
struct Int8Code : PairsOfIntegers {
  static constexpr int kRows = 4, kWords = kTile, kOperands = 2, kZero = 128;
  template <int i>
  HWY_INLINE static I16 weights(const uint32_t* words) {
    return hn::BitCast(I16Tag(), i == 0 ? hn::And(load_words(words), hn::Set(U16Tag(), 0xff)) : shift<-8>(load_words(words)));
  }
};
struct Int6Code : PairsOfIntegers {
  static constexpr int kRows = 16, kWords = 3 * kTile, kOperands = 8, kZero = 32;
  template <int i>
  HWY_INLINE static I16 weights(const uint32_t* words) {
    const U16 four = shift<-4 * (i % 4)>(load_words(words + i / 4 * kTile)), two = shift<4 - 2 * i>(load_words(words + 2 * kTile));
    return hn::BitCast(I16Tag(), hn::Or(hn::And(four, hn::Set(U16Tag(), 0x0f)), hn::And(two, hn::Set(U16Tag(), 0x30))));
  }
};
// Eight fours of k: of each, the two values that are kept meet the two activations at their positions. w - 8 here, since what a
// zero point would take off differs from column to column.
struct Sparse24Code : PairsOfIntegers {
  using X = int64_t;
  static constexpr int kRows = 32, kWords = 3 * kTile, kOperands = 8, kZero = 0;
  struct Operand {
    I16 values;
    hn::Vec<hn::Repartition<uint8_t, I16Tag>> bytes;  // of four activations, for the two values of a column
  };
  template <int i>
  HWY_INLINE static Operand weights(const uint32_t* words) {
    const U16Tag d;
    const U16 values = hn::And(shift<-4 * (i % 4)>(load_words(words + i / 4 * kTile)), hn::Set(d, 15));
    const U16 positions = hn::And(shift<-2 * i>(load_words(words + 2 * kTile)), hn::Set(d, 3));
    const U16 bytes = hn::Add(hn::Mul(positions, hn::Set(d, 0x0202)), hn::Set(d, 0x0100));
    return {hn::BitCast(I16Tag(), hn::Sub(values, hn::Set(d, 8))), hn::BitCast(hn::Repartition<uint8_t, I16Tag>(), bytes)};
  }
  HWY_INLINE static I16 broadcast(X x) { return hn::BitCast(I16Tag(), hn::Set(hn::Repartition<int64_t, I16Tag>(), x)); }
  HWY_INLINE static Sum multiply_add(Sum sum, const Operand& w, I16 x) {
    return dot_pairs(sum, w.values, hn::BitCast(I16Tag(), hn::TableLookupBytes(x, w.bytes)));
  }
};
struct F8Code {
  using X = float;
  using Sum = F32;
  static constexpr int kRows = 4, kWords = kTile, kOperands = 4;
  HWY_INLINE static Sum zero() { return hn::Zero(F32Tag()); }
  HWY_INLINE static F32 broadcast(X x) { return hn::Set(F32Tag(), x); }
  HWY_INLINE static Sum multiply_add(Sum sum, F32 w, F32 x) { return hn::MulAdd(w, x, sum); }
  // Exponent and mantissa where f32 has its own, 2^120 too small. k = i lies in byte 0, 2, 1, 3.
  template <int i>
  HWY_INLINE static F32 weights(const uint32_t* words) {
    const hn::RebindToUnsigned<F32Tag> d;
    constexpr int kByte = i % 2 * 2 + i / 2;
    const auto top = hn::ShiftLeft<24 - 8 * kByte>(hn::LoadU(d, words));
    const auto magnitude = hn::ShiftRight<4>(hn::And(top, hn::Set(d, 0x7f000000u)));
    const auto bits = hn::Or(hn::And(top, hn::Set(d, 0x80000000u)), magnitude);
    return hn::Mul(hn::BitCast(F32Tag(), bits), hn::Set(F32Tag(), 0x1p120f));
  }
};

// Rows [first, first + rows) of a: scales and sums [blocks, rows]; x tile by tile of at most tile_rows rows, each [X's of k, rows], so
// that multiplying a tile is one sequential read.
template <class Code>
struct Activations {
  static constexpr int kPerX = Code::kRows / Code::kOperands;  // values of k in an X
  typename Code::X* x;
  float* scales;
  int32_t* sums;
  int64_t first, rows, blocks, block, k_padded, tile_rows;

  int64_t tiles() const { return (rows + tile_rows - 1) / tile_rows; }
  int64_t tile_begin(int64_t tile) const { return rows * tile / tiles(); }
  typename Code::X* at(int64_t tile, int64_t k) const {
    const int64_t begin = tile_begin(tile);
    return x + (begin * k_padded + k * (tile_begin(tile + 1) - begin)) / kPerX;
  }
};

// One block of one row; columns that the packed weights only pad are 0.
template <class A>
void gather(const QuantizedGemmParams& p, int64_t row, int64_t k0, int64_t count, A* x) {
  const A* a = static_cast<const A*>(p.a) + row * p.lda;
  if (p.perm) {
    for (int64_t i = 0; i < count; ++i)
      if (const int32_t k = p.perm[k0 + i]; k >= 0) x[i] = a[k];
  } else if (k0 < p.k) {
    std::memcpy(x, a + k0, static_cast<size_t>(std::min(count, p.k - k0)) * sizeof(A));
  }
}

template <class Code, class A>
void prepare_tile(const QuantizedGemmParams& p, const Activations<Code>& a, int64_t tile, int64_t block) {
  const int64_t begin = a.tile_begin(tile), rows = a.tile_begin(tile + 1) - begin;
  const int64_t k0 = block * a.block, count = std::min(a.block, p.k_padded - k0);
  typename Code::X* to = a.at(tile, k0);
  for (int64_t r = 0; r < rows; ++r) {
    HWY_ALIGN A x[kActivationBlock] = {};
    gather(p, a.first + begin + r, k0, count, x);
    if constexpr (std::is_same_v<Code, F8Code>) {
      for (int64_t k = 0; k < count; ++k) to[k * rows + r] = to_float(x[k]);
    } else {
      int16_t q[kActivationBlock];
      const int64_t at = block * a.rows + begin + r;
      if constexpr (std::is_same_v<A, int8_t>) {
        a.scales[at] = p.a_scale[a.first + begin + r];
        a.sums[at] = 0;
        for (int64_t k = 0; k < count; ++k) a.sums[at] += q[k] = x[k];
      } else {
        quantize_block(x, count, q, &a.scales[at], &a.sums[at]);
      }
      constexpr int kPerX = Activations<Code>::kPerX;
      for (int64_t k = 0; k < count; k += kPerX) std::memcpy(to + k / kPerX * rows + r, q + k, sizeof(typename Code::X));
    }
  }
}

// Few rows would leave the multipliers waiting for their own sums: they get several sums, added at the end of a block.
template <class Code, int R>
inline constexpr int kChains = std::min(Code::kOperands, R * kVectors >= 8 ? 1 : R * kVectors >= 4 ? 2 : 4);

template <class Code, int R, int i>
HWY_INLINE void multiply_operand(const uint32_t* words, const typename Code::X* x,
                                 typename Code::Sum (&sums)[kChains<Code, R>][R][kVectors]) {
  decltype(Code::template weights<i>(words)) w[kVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; ++v) w[v] = Code::template weights<i>(words + v * kLanes);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const auto row = Code::broadcast(x[i * R + r]);
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      auto& sum = sums[i % kChains<Code, R>][r][v];
      sum = Code::multiply_add(sum, w[v], row);
    }
  }
}
template <class Code, int R, int... i>
HWY_INLINE void multiply_step(const uint32_t* words, const typename Code::X* x,
                              typename Code::Sum (&sums)[kChains<Code, R>][R][kVectors], std::integer_sequence<int, i...>) {
  (multiply_operand<Code, R, i>(words, x, sums), ...);
}

HWY_INLINE F32 scales_of(const QuantizedGemmParams& p, int64_t group, int64_t column) {
  const F32Tag df;
  const int64_t at = group * p.n_padded + column;
  if (p.scale_dtype == DType::f16) return load_f32(df, static_cast<const half_t*>(p.scales) + at);
  if (p.scale_dtype == DType::bf16) return load_f32(df, static_cast<const bfloat16_t*>(p.scales) + at);
  return hn::Set(df, static_cast<const float*>(p.scales)[group * ((p.n_padded + 127) / 128) + column / 128]);
}

// product [R, kTile] += the sums of one block, scaled.
template <class Code, int R>
HWY_INLINE void add_block(const QuantizedGemmParams& p, const Activations<Code>& a, int64_t block, int64_t row, int64_t column,
                          const hn::TFromV<typename Code::Sum>* totals, float* HWY_RESTRICT product) {
  const F32Tag df;
  const I32Tag di;
  const int64_t group = block * a.block / p.group;
  for (int v = 0; v < kTile; v += kLanes) {
    const F32 scale = scales_of(p, group, column + v);
    I32 zero = hn::Zero(di);
    if constexpr (!std::is_same_v<Code, F8Code>)
      zero = p.zeros ? hn::PromoteTo(di, hn::LoadU(hn::Rebind<uint8_t, I32Tag>(), p.zeros + group * p.n_padded + column + v))
                     : hn::Set(di, Code::kZero);
    for (int r = 0; r < R; ++r) {
      F32 sum;
      if constexpr (std::is_same_v<Code, F8Code>) {
        sum = hn::Load(df, totals + r * kTile + v);
      } else {
        const int64_t x = block * a.rows + row + r;
        const I32 exact = hn::Sub(hn::Load(di, totals + r * kTile + v), hn::Mul(zero, hn::Set(di, a.sums[x])));
        sum = hn::Mul(hn::ConvertTo(df, exact), hn::Set(df, a.scales[x]));
      }
      float* out = product + r * kTile + v;
      hn::StoreU(hn::MulAdd(sum, scale, hn::LoadU(df, out)), df, out);
    }
  }
}

// product [R, kTile] = a tile of R rows times a tile of weights.
template <class Code, int R>
HWY_NOINLINE void multiply(const QuantizedGemmParams& p, const Activations<Code>& a, int64_t row_tile, int64_t tile,
                           float* HWY_RESTRICT product) {
  constexpr int kAhead = 768;  // words, 3 KB: past what the hardware prefetches across a page boundary
  const auto* x = a.at(row_tile, 0);
  const uint32_t* words = reinterpret_cast<const uint32_t*>(p.packed) + tile * (p.k_padded / Code::kRows) * Code::kWords;
  HWY_ALIGN hn::TFromV<typename Code::Sum> totals[R * kTile];
  std::memset(product, 0, sizeof(float) * R * kTile);

  for (int64_t block = 0; block < a.blocks; ++block) {
    const int64_t steps = std::min(a.block, p.k_padded - block * a.block) / Code::kRows;
    typename Code::Sum sums[kChains<Code, R>][R][kVectors];
#pragma GCC unroll 64
    for (int i = 0; i < kChains<Code, R> * R * kVectors; ++i) sums[i / (R * kVectors)][i / kVectors % R][i % kVectors] = Code::zero();

    for (int64_t step = 0; step < steps; ++step, words += Code::kWords, x += R * Code::kOperands) {
#pragma GCC unroll 8
      for (int line = 0; line < Code::kWords; line += 16) hwy::Prefetch(words + kAhead + line);
      multiply_step<Code, R>(words, x, sums, std::make_integer_sequence<int, Code::kOperands>());
    }

    // Through memory, so that what follows asks for no register while the sums hold most of them.
#pragma GCC unroll 64
    for (int i = 0; i < R * kVectors; ++i) {
      auto sum = sums[0][i / kVectors][i % kVectors];
#pragma GCC unroll 4
      for (int chain = 1; chain < kChains<Code, R>; ++chain) sum = hn::Add(sum, sums[chain][i / kVectors][i % kVectors]);
      hn::Store(sum, hn::DFromV<decltype(sum)>(), totals + i * kLanes);
    }
    add_block<Code, R>(p, a, block, a.tile_begin(row_tile), tile * kTile, totals, product);
  }
}

template <class Code, int... R>
constexpr auto kernels(std::integer_sequence<int, R...>) {
  return std::array{&multiply<Code, R + 1>...};
}
template <class Code>
inline constexpr auto kMultiply = kernels<Code>(std::make_integer_sequence<int, kMaxRows>());

// A tile's bias as f32, zeros where there is none.
template <class Half>
void load_bias(const QuantizedGemmParams& p, int64_t column, int64_t columns, float* bias) {
  std::memset(bias, 0, sizeof(float) * kTile);
  if (!p.bias) return;
  for (int64_t i = 0; i < columns; ++i) bias[i] = to_float(static_cast<const Half*>(p.bias)[column + i]);
}

// Row tiles [begin, end) of 32 result columns.
template <class Code, class Half>
void multiply_strip(const QuantizedGemmParams& p, const Activations<Code>& a, int64_t tile, int64_t begin, int64_t end) {
  const F32Tag d;
  const bool gated = p.epilogue == CUL_EPILOGUE_SILU_MUL;
  const int64_t width = gated ? p.n / 2 : p.n;
  const int64_t column = tile * kTile, columns = std::min<int64_t>(kTile, width - column);
  // silu_mul: the factors' columns begin anywhere in a tile, and reach into the next one.
  const int64_t up_tile = (width + column) / kTile, up_shift = (width + column) % kTile;
  const int64_t up_tiles = (up_shift + columns + kTile - 1) / kTile;
  HWY_ALIGN float bias[kTile], up_bias[kTile];
  HWY_ALIGN float product[kMaxRows * kTile], part[kMaxRows * kTile], up[kMaxRows][2 * kTile] = {};
  load_bias<Half>(p, column, columns, bias);
  if (gated) load_bias<Half>(p, width + column, columns, up_bias);

  for (int64_t t = begin; t < end; ++t) {
    const int64_t row = a.tile_begin(t);
    const auto rows = static_cast<size_t>(a.tile_begin(t + 1) - row);
    kMultiply<Code>[rows - 1](p, a, t, tile, product);
    for (int64_t i = 0; gated && i < up_tiles; ++i) {
      kMultiply<Code>[rows - 1](p, a, t, up_tile + i, part);
      for (size_t r = 0; r < rows; ++r) std::memcpy(&up[r][i * kTile], part + r * kTile, sizeof(float) * kTile);
    }
    for (size_t r = 0; r < rows; ++r) {
      Half out[kTile];
      for (int v = 0; v < kTile; v += kLanes) {
        F32 x = hn::Add(hn::Load(d, product + r * kTile + static_cast<size_t>(v)), hn::Load(d, bias + v));
        if (p.epilogue != CUL_EPILOGUE_NONE) x = silu(x);
        if (gated) x = hn::Mul(x, hn::Add(hn::LoadU(d, &up[r][up_shift + v]), hn::Load(d, up_bias + v)));
        store_f32(x, out + v);
      }
      Half* c = static_cast<Half*>(p.c) + (a.first + row + static_cast<int64_t>(r)) * p.ldc + column;
      std::memcpy(c, out, static_cast<size_t>(columns) * sizeof(Half));
    }
  }
}

// A: the type of a; Half: of c.
template <class Code, class A, class Half>
void run(const QuantizedGemmParams& p, ThreadPool& pool) {
  const QuantizedGemmWorkspace w = quantized_gemm_workspace(p);
  auto* base = static_cast<std::byte*>(p.workspace);
  const int64_t width = p.epilogue == CUL_EPILOGUE_SILU_MUL ? p.n / 2 : p.n;
  const int64_t tiles = (width + kTile - 1) / kTile;
  // Sums of floats have as many chains as the rows of a tile leave registers for: a row's bits depend on its neighbours.
  const int64_t tile_rows = p.batch_invariant && std::is_same_v<Code, F8Code> ? 1 : kMaxRows;
  for (int64_t first = 0; first < p.m; first += w.rows) {
    const Activations<Code> a{reinterpret_cast<typename Code::X*>(base + w.x), reinterpret_cast<float*>(base + w.scales),
                              reinterpret_cast<int32_t*>(base + w.sums), first, std::min(w.rows, p.m - first), w.blocks, w.block, p.k_padded,
                              tile_rows};
    pool.parallel_for(a.tiles() * a.blocks, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) prepare_tile<Code, A>(p, a, i / a.blocks, i % a.blocks);
    });
    const int64_t strips = (a.tiles() + kStripTiles - 1) / kStripTiles;
    pool.parallel_for(tiles * strips, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t strip = i % strips;
        multiply_strip<Code, Half>(p, a, i / strips, a.tiles() * strip / strips, a.tiles() * (strip + 1) / strips);
      }
    });
  }
}

template <class Code>
void run_half(const QuantizedGemmParams& p, ThreadPool& pool) {
  if (p.dtype == DType::f16) run<Code, half_t, half_t>(p, pool);
  else run<Code, bfloat16_t, bfloat16_t>(p, pool);
}

}  // namespace

void w8a16_gemm_vector(const QuantizedGemmParams& p, ThreadPool& pool) {
  if (p.floats) run_half<F8Code>(p, pool);
  else run_half<Int8Code>(p, pool);
}
void w6a16_gemm_vector(const QuantizedGemmParams& p, ThreadPool& pool) { run_half<Int6Code>(p, pool); }
void w4a16_sparse24_gemm_vector(const QuantizedGemmParams& p, ThreadPool& pool) { run_half<Sparse24Code>(p, pool); }
void w6a8_gemm_vector(const QuantizedGemmParams& p, ThreadPool& pool) {
  if (p.out_dtype == DType::f16) run<Int6Code, int8_t, half_t>(p, pool);
  else run<Int6Code, int8_t, bfloat16_t>(p, pool);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3_DL
HWY_POP_ATTRIBUTES
#endif
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(w8a16_gemm_vector);
HWY_EXPORT(w6a16_gemm_vector);
HWY_EXPORT(w6a8_gemm_vector);
HWY_EXPORT(w4a16_sparse24_gemm_vector);
void w8a16_gemm(const QuantizedGemmParams& p, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(w8a16_gemm_vector)(p, pool); }
void w6a16_gemm(const QuantizedGemmParams& p, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(w6a16_gemm_vector)(p, pool); }
void w6a8_gemm(const QuantizedGemmParams& p, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(w6a8_gemm_vector)(p, pool); }
void w4a16_sparse24_gemm(const QuantizedGemmParams& p, ThreadPool& pool) { HWY_DYNAMIC_DISPATCH(w4a16_sparse24_gemm_vector)(p, pool); }
}  // namespace culebra::cpu
#endif

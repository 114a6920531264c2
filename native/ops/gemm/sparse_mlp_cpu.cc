// sparse_mlp on the cpu: one pass over rows of w_gate and, where a row of x needs it, of w_up; then the needed rows of w_down_t,
// columns shared between threads. Sums run in the order of d and of the rows, each row of x by itself, whatever the number of threads;
// a row alone takes more chains of sums than one of several, unless the call is to be batch invariant.
#include "ops/gemm/sparse_mlp.h"

#include <array>
#include <cmath>
#include <cstring>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/sparse_mlp_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gemm/sparse_mlp_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "backends/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
namespace {

// What all steps of a call share.
struct Work {
  const SparseMlpParams& p;
  int64_t d_padded;
  float* x;         // [rows, d_padded], zeros beyond d
  float* products;  // [inner, rows]: h x w_up, 0 where h is below the threshold
  int32_t* list;    // [inner]: which rows of x need a row (a bit each), then the rows that any needs, ascending
};

template <class T>
const T* row_of(const void* matrix, int64_t row, int64_t stride) {
  return static_cast<const T*>(matrix) + row * stride;
}

// How many independent sums hide the latency of an addition, for one row of x that may depend on being alone and for all others.
constexpr int kChainsAlone = 4, kChains = 2;

// out[b] = w . x[b], in Chains sums.
template <class T, int B, int Chains>
void dot(const T* w, const Work& work, float* out) {
  const F32Tag d;
  const int64_t whole = work.p.d / kLanes * kLanes;
  F32 sums[Chains][B];
#pragma GCC unroll 8
  for (int i = 0; i < Chains * B; ++i) sums[i / B][i % B] = hn::Zero(d);
  const auto step = [&](int64_t i, int chain, F32 v) HWY_ATTR {
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) sums[chain][b] = hn::MulAdd(v, hn::Load(d, work.x + b * work.d_padded + i), sums[chain][b]);
  };
  int64_t i = 0;
  for (; i + Chains * kLanes <= whole; i += Chains * kLanes)
#pragma GCC unroll 4
    for (int c = 0; c < Chains; ++c) step(i + c * kLanes, c, load_f32(d, w + i + c * kLanes));
  for (; i < whole; i += kLanes) step(i, 0, load_f32(d, w + i));
  if (i < work.p.d) {
    T tail[kLanes] = {};
    std::memcpy(tail, w + i, static_cast<size_t>(work.p.d - i) * sizeof(T));
    step(i, 0, load_f32(d, tail));
  }
  for (int b = 0; b < B; ++b) {
    F32 sum = sums[0][b];
    for (int c = 1; c < Chains; ++c) sum = hn::Add(sum, sums[c][b]);
    out[b] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

// Row i of w_gate and, where needed, of w_up.
template <class T, int B, int Chains>
void gate_and_up(const Work& work, int64_t i) {
  const SparseMlpParams& p = work.p;
  float h[B], up[B];
  dot<T, B, Chains>(row_of<T>(p.w_gate, i, p.ld_gate), work, h);
  int32_t mask = 0;
  for (int b = 0; b < B; ++b) {
    h[b] /= 1 + std::exp(-h[b]);
    mask |= !(std::fabs(h[b]) < p.threshold) << b;  // a NaN is not switched off
  }
  if (mask) dot<T, B, Chains>(row_of<T>(p.w_up, i, p.ld_up), work, up);
  for (int b = 0; b < B; ++b) work.products[i * B + b] = mask >> b & 1 ? h[b] * up[b] : 0;
  work.list[i] = mask;
}

// Columns [begin, end) of y, a strip at a time: four rows of w_down_t meet the strip's sums, which stay in the first-level cache.
template <class T, int B>
void down(const Work& work, int64_t needed, int64_t begin, int64_t end) {
  constexpr int64_t kStrip = 512;
  constexpr int kRows = 4;
  const SparseMlpParams& p = work.p;
  const F32Tag d;
  HWY_ALIGN float sums[B][kStrip];
  for (int64_t column = begin; column < end; column += kStrip) {
    const int64_t columns = std::min(kStrip, end - column), whole = columns / kLanes * kLanes;
    std::memset(sums, 0, sizeof sums);
    for (int64_t j = 0; j < needed; j += kRows) {
      const auto rows = static_cast<int>(std::min<int64_t>(kRows, needed - j));
      const T* w[kRows];
      const float* product[kRows];
      for (int r = 0; r < rows; ++r) {
        w[r] = row_of<T>(p.w_down_t, work.list[j + r], p.ld_down) + column;
        product[r] = work.products + int64_t{work.list[j + r]} * B;
      }
      const auto add = [&](int64_t i, int r, F32 v) HWY_ATTR {
#pragma GCC unroll 4
        for (int b = 0; b < B; ++b)
          if (B == 1 || product[r][b] != 0)
            hn::Store(hn::MulAdd(hn::Set(d, product[r][b]), v, hn::Load(d, sums[b] + i)), d, sums[b] + i);
      };
      for (int64_t i = 0; i < whole; i += kLanes)
        for (int r = 0; r < rows; ++r) add(i, r, load_f32(d, w[r] + i));
      if (whole == columns) continue;
      for (int r = 0; r < rows; ++r) {
        T tail[kLanes] = {};
        std::memcpy(tail, w[r] + whole, static_cast<size_t>(columns - whole) * sizeof(T));
        add(whole, r, load_f32(d, tail));
      }
    }
    for (int b = 0; b < B; ++b) {
      T out[kStrip];
      for (int64_t i = 0; i < columns; i += kLanes) store_f32(hn::Load(d, sums[b] + i), out + i);
      std::memcpy(static_cast<T*>(p.y) + b * p.ldy + column, out, static_cast<size_t>(columns) * sizeof(T));
    }
  }
}

template <class T, int B, int Chains>
void run(const Work& work, ThreadPool& pool) {
  const SparseMlpParams& p = work.p;
  for (int b = 0; b < B; ++b) {
    float* to = work.x + b * work.d_padded;
    const T* from = row_of<T>(p.x, b, p.ldx);
    for (int64_t i = 0; i < p.d; ++i) to[i] = to_float(from[i]);
    std::fill(to + p.d, to + work.d_padded, 0.0f);
  }
  pool.parallel_for(p.inner, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) gate_and_up<T, B, Chains>(work, i);
  });
  for (int b = 0; p.active && b < B; ++b) p.active[b] = 0;
  int64_t needed = 0;
  for (int64_t i = 0; i < p.inner; ++i) {
    const int32_t mask = work.list[i];
    for (int b = 0; p.active && b < B; ++b) p.active[b] += mask >> b & 1;
    if (mask) work.list[needed++] = static_cast<int32_t>(i);
  }
  constexpr int64_t kColumns = 64;  // whole cache lines of y and w_down_t
  pool.parallel_for((p.d + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    down<T, B>(work, needed, begin * kColumns, std::min(end * kColumns, p.d));
  });
}

template <class T>
void run(const Work& work, ThreadPool& pool) {
  constexpr std::array kRun{&run<T, 1, kChains>, &run<T, 2, kChains>, &run<T, 3, kChains>, &run<T, 4, kChains>};
  const bool alone = work.p.rows == 1 && !work.p.batch_invariant;
  (alone ? &run<T, 1, kChainsAlone> : kRun[static_cast<size_t>(work.p.rows - 1)])(work, pool);
}

}  // namespace

void sparse_mlp_vector(const SparseMlpParams& p, ThreadPool& pool) {
  const SparseMlpWorkspace w = sparse_mlp_workspace(p.rows, p.d, p.inner);
  auto* const base = static_cast<std::byte*>(p.workspace);
  const Work work{p, w.d_padded, reinterpret_cast<float*>(base + w.x_at), reinterpret_cast<float*>(base + w.products_at),
                  reinterpret_cast<int32_t*>(base + w.list_at)};
  if (p.dtype == DType::f16) run<half_t>(work, pool);
  else run<bfloat16_t>(work, pool);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(sparse_mlp_vector);
void sparse_mlp(const SparseMlpParams& p, ThreadPool& pool) {
  if (p.rows > 0) HWY_DYNAMIC_DISPATCH(sparse_mlp_vector)(p, pool);
}
}  // namespace culebra::cpu
#endif

#include "ops/gemm/sparse_mlp.h"

#include <type_traits>

#include "device/atomic.h"
#include "device/barrier.h"
#include "device/launch.h"
#include "device/vector.h"
#include "device/warp.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kGateRows = 4, kUpRows = 2;  // rows of a matrix that a warp reads side by side
constexpr int kColumns = 512, kRowGroups = kThreads / (kColumns / 8);

template <class T>
struct Matrix {
  const T* data;
  int64_t stride;
  int32_t aligned;  // rows start at multiples of 16 bytes

  // 8 columns of a row: kWhole ones of an aligned matrix at once, others one by one, zeros beyond `columns`. Weights are read once.
  template <bool kWhole, bool kReadOnce = true>
  CUL_DEVICE_FN Vector<T, 8> chunk(int64_t row, int64_t column, int64_t columns) const {
    const T* const from = data + row * stride + column;
    Vector<T, 8> values;
    if constexpr (kWhole) {
      const auto* const whole = reinterpret_cast<const Vector<T, 8>*>(from);
      values = kReadOnce ? load_stream(whole) : load_constant(whole);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) values[i] = column + i < columns ? from[i] : T{};
    }
    return values;
  }
};

struct Scratch {
  float* h;            // [rows, inner]
  uint32_t* bits;      // [rows, words]: row 32 w + i of the weights is needed by a row of x: bit i of word w
  float* products;     // [rows, inner]: h x w_up of the j-th needed row
  uint32_t* counters;  // [column_tiles]: segments that have written their partial sums
  float* partials;     // [segments, rows, d]
  int64_t inner, words;
};

// sums[r][b] = w[row[r]] . x[b], in every lane.
template <class T, int B, int R>
CUL_DEVICE_FN void dot_rows(const Matrix<T>& w, const Matrix<T>& x, int64_t d, const int64_t (&row)[R], int lane, float (&sums)[R][B]) {
#pragma unroll
  for (int i = 0; i < R * B; ++i) sums[i / B][i % B] = 0;
  const auto step = [&](auto whole, int64_t column) {
    Vector<T, 8> weights[R];
#pragma unroll
    for (int r = 0; r < R; ++r) weights[r] = w.template chunk<whole>(row[r], column, d);
#pragma unroll
    for (int b = 0; b < B; ++b) {
      const Vector<T, 8> values = x.template chunk<whole, false>(b, column, d);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int r = 0; r < R; ++r) sums[r][b] = fmaf(to_float(weights[r][i]), to_float(values[i]), sums[r][b]);
    }
  };
  int64_t column = lane * 8;
  if (w.aligned && x.aligned) {
#pragma unroll 2
    for (; column + 8 <= d; column += 256) step(std::true_type(), column);
  }
#pragma unroll 1
  for (; column < d; column += 256) step(std::false_type(), column);
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int b = 0; b < B; ++b) sums[r][b] = warp_sum(sums[r][b]);
}

// Computes: h = silu(x w_gate^T), a bit for each |h| >= threshold (or NaN), and zeros in the counters of the last kernel.
// Shapes:   x [B, d], w_gate [inner, d], h [B, inner].
// Layouts:  row-major, any row strides.
// Tiles:    32 rows of w_gate a block, 4 a warp: one word of bits.
// Shared:   the block's bits.
// Order:    d in steps of 256, 8 values of it a lane; lanes added by halves.
// Numerics: products of halves exact, f32 sums.
// Needs:    sm_80. Limit: 2 inner d bytes.
// Source:   CATS, arXiv:2404.08763.
template <class T, int B>
__global__ void __launch_bounds__(kThreads) gate_rows(Matrix<T> w, Matrix<T> x, int64_t d, float threshold, Scratch s, int column_tiles) {
  CUL_SHARED(uint32_t, needed, [kWarps][B]);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 32 + warp * kGateRows;
  if (blockIdx.x == 0)
    for (int i = static_cast<int>(threadIdx.x); i < column_tiles; i += kThreads) s.counters[i] = 0;
  if (s.inner == 0) return;
  int64_t row[kGateRows];
#pragma unroll
  for (int r = 0; r < kGateRows; ++r) row[r] = min(first + r, s.inner - 1);
  float h[kGateRows][B];
  dot_rows<T, B>(w, x, d, row, lane, h);
#pragma unroll
  for (int b = 0; b < B; ++b) {
    uint32_t bits = 0;
#pragma unroll
    for (int r = 0; r < kGateRows; ++r) {
      const float value = h[r][b] / (1.0f + expf(-h[r][b]));
      const bool inside = first + r < s.inner;
      if (inside && !(fabsf(value) < threshold)) bits |= 1u << (warp * kGateRows + r);
      if (inside && lane == 0) s.h[b * s.inner + first + r] = value;
    }
    if (lane == 0) needed[warp][b] = bits;
  }
  __syncthreads();
  if (threadIdx.x < B) {
    uint32_t word = 0;
    for (int i = 0; i < kWarps; ++i) word |= needed[i][threadIdx.x];
    s.bits[static_cast<int64_t>(threadIdx.x) * s.words + blockIdx.x] = word;
  }
}

// The needed rows, in order, are shared equally between `segments` blocks: those of this one, and the place of its first.
struct Segment {
  int64_t begin, count;
};
template <int B>
CUL_DEVICE_FN Segment list_segment(const Scratch& s, int64_t segment, int64_t segments, int32_t* list) {
  CUL_SHARED(int, ends, [kWarps]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t first = s.words * thread / kThreads, end = s.words * (thread + 1) / kThreads;
  const auto word = [&](int64_t i) {
    uint32_t any = 0;
#pragma unroll
    for (int b = 0; b < B; ++b) any |= s.bits[b * s.words + i];
    return any;
  };
  int count = 0;
  for (int64_t i = first; i < end; ++i) count += __popc(word(i));
  const int upto = warp_inclusive_sum(count);
  if (lane == 31) ends[warp] = upto;
  __syncthreads();
  int64_t before = upto - count, total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += ends[w];
    total += ends[w];
  }
  const int64_t begin = total * segment / segments, stop = total * (segment + 1) / segments;
  for (int64_t i = first; i < end && before < stop; ++i)
    for (uint32_t rest = word(i); rest; rest &= rest - 1, ++before)
      if (before >= begin && before < stop) list[before - begin] = static_cast<int32_t>(i * 32 + __ffs(static_cast<int>(rest)) - 1);
  __syncthreads();
  return {begin, stop - begin};
}

// Computes: products = h x w_up of the needed rows (0 for a row of x that does not need one), and how many each row of x needs.
// Shapes:   x [B, d], w_up [inner, d], products [B, inner] of which the needed rows' number is written, active [B] or null.
// Layouts:  row-major, any row strides; products by place among the needed rows.
// Tiles:    an equal share of the needed rows a block, 2 at once a warp.
// Shared:   the block's list of rows, at most kSparseMlpSegmentRows.
// Order:    as gate_rows.
// Numerics: as gate_rows.
// Needs:    sm_80. Limit: 2 d bytes per needed row.
// Source:   CATS, arXiv:2404.08763; every block finds its rows by itself from the bits, so that no list is made in between.
template <class T, int B>
__global__ void __launch_bounds__(kThreads) up_rows(Matrix<T> w, Matrix<T> x, int64_t d, Scratch s, int32_t* active) {
  CUL_DYNAMIC_SHARED(int32_t, list, 16);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Segment segment = list_segment<B>(s, blockIdx.x, gridDim.x, list);
  if (active && blockIdx.x == 0 && warp < B) {
    int count = 0;
    for (int64_t i = lane; i < s.words; i += 32) count += __popc(s.bits[warp * s.words + i]);
    count = warp_sum(count);
    if (lane == 0) active[warp] = count;
  }
  for (int64_t j = warp * kUpRows; j < segment.count; j += kWarps * kUpRows) {
    int64_t row[kUpRows];
#pragma unroll
    for (int r = 0; r < kUpRows; ++r) row[r] = list[min(j + r, segment.count - 1)];
    float up[kUpRows][B];
    dot_rows<T, B>(w, x, d, row, lane, up);
    if (lane != 0) continue;
#pragma unroll
    for (int r = 0; r < kUpRows; ++r)
#pragma unroll
      for (int b = 0; b < B; ++b) {
        if (j + r >= segment.count) continue;
        const bool needed = s.bits[b * s.words + row[r] / 32] >> (row[r] % 32) & 1u;
        s.products[b * s.inner + segment.begin + j + r] = needed ? s.h[b * s.inner + row[r]] * up[r][b] : 0.0f;
      }
  }
}

// Computes: y = products w_down_t: each block its share of the needed rows; the last one of a column tile adds the shares.
// Shapes:   products [B, inner], w_down_t [inner, d], partials [segments, B, d], y [B, d].
// Layouts:  row-major, any row strides.
// Tiles:    512 columns x one segment a block: 8 columns a thread, every fourth row of the segment a group of 64 threads.
// Shared:   the block's list of rows; sums [4 groups][B][512].
// Order:    rows ascending within a group; groups 0..3; segments ascending.
// Numerics: f32, one rounding to y.
// Needs:    sm_80. Limit: 2 d bytes per needed row, 8 segments B d bytes of partial sums.
// Source:   CATS, arXiv:2404.08763; partial sums in a fixed order instead of its float atomics.
template <class T, int B>
__global__ void __launch_bounds__(kThreads) down_rows(Matrix<T> w, int64_t d, Scratch s, int segments, T* y, int64_t ldy) {
  CUL_DYNAMIC_SHARED(int32_t, list, 16);
  CUL_SHARED(float, sums, [kRowGroups][B][kColumns]);
  CUL_SHARED(int, last, [1]);
  const int thread = static_cast<int>(threadIdx.x), group = thread / (kColumns / 8), slot = thread % (kColumns / 8) * 8;
  const int64_t tile = blockIdx.x / segments, index = blockIdx.x % segments, column0 = tile * kColumns;
  const Segment segment = list_segment<B>(s, index, segments, list);

  float sum[B][8] = {};
  const auto add_row = [&](auto whole, int64_t j) {
    const Vector<T, 8> weights = w.template chunk<whole>(list[j], column0 + slot, d);
#pragma unroll
    for (int b = 0; b < B; ++b) {
      const float product = s.products[b * s.inner + segment.begin + j];
      if (B > 1 && product == 0) continue;  // of a row that another row of x needs: not even a NaN of it counts
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[b][i] = fmaf(product, to_float(weights[i]), sum[b][i]);
    }
  };
  if (w.aligned && column0 + slot + 8 <= d) {
#pragma unroll 8
    for (int64_t j = group; j < segment.count; j += kRowGroups) add_row(std::true_type(), j);
  } else if (column0 + slot < d) {
#pragma unroll 1
    for (int64_t j = group; j < segment.count; j += kRowGroups) add_row(std::false_type(), j);
  }
#pragma unroll
  for (int b = 0; b < B; ++b)
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[group][b][slot + i] = sum[b][i];
  __syncthreads();
  const int64_t stride = int64_t{B} * d;
  for (int i = thread; i < B * kColumns; i += kThreads) {
    const int b = i / kColumns, column = i % kColumns;
    if (column0 + column >= d) continue;
    float total = sums[0][b][column];
#pragma unroll
    for (int g = 1; g < kRowGroups; ++g) total += sums[g][b][column];
    s.partials[index * stride + b * d + column0 + column] = total;
  }
  __syncthreads();
  if (thread == 0) {
    __threadfence();  // the block's partial sums before its count, the other blocks' after it
    last[0] = atomicAdd(&s.counters[tile], 1u) == static_cast<uint32_t>(segments - 1);
    __threadfence();
  }
  __syncthreads();
  if (!last[0]) return;
  for (int i = thread; i < B * kColumns; i += kThreads) {
    const int b = i / kColumns, column = i % kColumns;
    if (column0 + column >= d) continue;
    const float* const part = s.partials + b * d + column0 + column;
    float total = 0;
#pragma unroll 8
    for (int g = 0; g < segments; ++g) total += part[g * stride];
    y[b * ldy + column0 + column] = from_float<T>(total);
  }
}

template <class T, int B>
void run(const SparseMlpParams& p, int64_t first_row, NativeStream stream) {
  const SparseMlpPlan& plan = p.plan;
  auto* const base = static_cast<char*>(p.workspace);
  const Scratch scratch{reinterpret_cast<float*>(base),
                        reinterpret_cast<uint32_t*>(base + plan.bits_at),
                        reinterpret_cast<float*>(base + plan.products_at),
                        reinterpret_cast<uint32_t*>(base + plan.counters_at),
                        reinterpret_cast<float*>(base + plan.partials_at),
                        p.inner,
                        (p.inner + 31) / 32};
  const auto matrix = [&](const void* data, int64_t stride, int64_t rows) {
    return Matrix<T>{static_cast<const T*>(data), stride, stride % 8 == 0 || rows == 1};
  };
  Matrix<T> x = matrix(p.x, p.ldx, p.rows);
  x.data += first_row * p.ldx;
  T* const y = static_cast<T*>(p.y) + first_row * p.ldy;
  const auto list_bytes = [&](int64_t segments) { return static_cast<size_t>((p.inner + segments - 1) / segments + 1) * sizeof(int32_t); };
  launch(gate_rows<T, B>, dim3(static_cast<unsigned>(scratch.words ? scratch.words : 1)), dim3(kThreads), 0, stream,
         matrix(p.w_gate, p.ld_gate, p.inner), x, p.d, p.threshold, scratch, plan.column_tiles);
  launch(up_rows<T, B>, dim3(static_cast<unsigned>(plan.up_segments)), dim3(kThreads), list_bytes(plan.up_segments), stream,
         matrix(p.w_up, p.ld_up, p.inner), x, p.d, scratch, p.active ? p.active + first_row : nullptr);
  if (p.d == 0) return;
  launch(down_rows<T, B>, dim3(static_cast<unsigned>(plan.down_segments * plan.column_tiles)), dim3(kThreads),
         list_bytes(plan.down_segments), stream, matrix(p.w_down_t, p.ld_down, p.inner), p.d, scratch, plan.down_segments, y, p.ldy);
}

template <class T>
void run(const SparseMlpParams& p, NativeStream stream) {
  for (int64_t row = 0; row < p.rows; row += p.plan.rows_at_once) {
    switch (p.plan.rows_at_once) {
      case 1: run<T, 1>(p, row, stream); break;
      case 2: run<T, 2>(p, row, stream); break;
      case 3: run<T, 3>(p, row, stream); break;
      default: run<T, 4>(p, row, stream); break;
    }
  }
}

}  // namespace

void sparse_mlp(const SparseMlpParams& p, NativeStream stream) {
  if (p.rows == 0) return;
  if (p.dtype == DType::f16)
    run<half_t>(p, stream);
  else
    run<bfloat16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

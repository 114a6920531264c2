#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "hwy/aligned_allocator.h"
#include "ops/linear_attention/conv_fft.h"

#ifndef CULEBRA_CONV_FFT_CPU_ONCE
#define CULEBRA_CONV_FFT_CPU_ONCE
namespace culebra::cpu {

// The roots e^(-2 pi i k / n) that transforms of 2^log2_points points take, in the order in which each pass reads them.
struct ConvRoots {
  int log2_points = -1;
  std::vector<float> halves;                // of a first pass of radix 2: k = 0 .. n/2 - 1
  std::vector<std::vector<float>> quarters;  // of passes of radix 4 over n = 4^i points: powers 1, 2, 3 of root q, q = 0 .. n/4 - 1

  void make(int log2) {
    if (log2 == log2_points) return;
    auto add = [](std::vector<float>& to, int64_t k, int64_t n) {
      const double angle = -2 * 3.14159265358979323846 * static_cast<double>(k) / static_cast<double>(n);
      to.push_back(static_cast<float>(std::cos(angle)));
      to.push_back(static_cast<float>(std::sin(angle)));
    };
    halves.clear();
    quarters.assign(static_cast<size_t>(log2 / 2) + 1, {});
    if (log2 % 2)
      for (int64_t k = 0, n = int64_t{1} << log2; k < n / 2; ++k) add(halves, k, n);
    for (int i = 2; i <= log2 / 2; ++i)
      for (int64_t q = 0, n = int64_t{1} << 2 * i; q < n / 4; ++q)
        for (int64_t power = 1; power <= 3; ++power) add(quarters[static_cast<size_t>(i)], q * power, n);
    log2_points = log2;
  }
};

// A worker's memory, kept between calls as long as it is not much.
struct ConvScratch {
  static constexpr size_t kKeptElems = size_t{16} << 20;
  hwy::AlignedFreeUniquePtr<float[]> memory;
  size_t size = 0;

  float* at_least(size_t elems) {
    if (size < elems) {
      memory = hwy::AllocateAligned<float>(elems);
      if (!memory) throw std::bad_alloc();
      size = elems;
    }
    return memory.get();
  }
  void release_much() {
    if (size > kKeptElems) *this = {};
  }
  static ConvScratch& own() {
    static thread_local ConvScratch scratch;
    return scratch;
  }
};

// Items of the transforms: a group of channels, and a share of the batch's windows.
struct ConvShares {
  int64_t groups = 0, shares = 1;
};

}  // namespace culebra::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/conv_fft_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = ConvFftParams;
// A row is one point of many transforms: the real parts of one vector of channels, then the imaginary ones, which are the next
// vector of channels.
constexpr int64_t kRow = 2 * kLanes;

struct Complex {
  F32 re, im;
};
HWY_INLINE Complex load_point(const float* row) { return {load(row), load(row + kLanes)}; }
HWY_INLINE void store_point(Complex z, float* row) {
  store_f32(z.re, row);
  store_f32(z.im, row + kLanes);
}
HWY_INLINE Complex operator+(Complex a, Complex b) { return {hn::Add(a.re, b.re), hn::Add(a.im, b.im)}; }
HWY_INLINE Complex operator-(Complex a, Complex b) { return {hn::Sub(a.re, b.re), hn::Sub(a.im, b.im)}; }
HWY_INLINE Complex times_minus_i(Complex a) { return {a.im, hn::Neg(a.re)}; }
// a w, or a conj(w).
template <bool kInverse>
HWY_INLINE Complex times(Complex a, const float* w) {
  const F32 re = hn::Set(F32Tag(), w[0]), im = hn::Set(F32Tag(), kInverse ? -w[1] : w[1]);
  return {hn::NegMulAdd(a.im, im, hn::Mul(a.re, re)), hn::MulAdd(a.im, re, hn::Mul(a.re, im))};
}

// Four points, `stride` rows apart, frequencies in bit-reversed order; w: their roots, or null where all are 1.
HWY_INLINE void quarter_points(float* rows, int64_t stride, const float* w) {
  const Complex x0 = load_point(rows), x1 = load_point(rows + stride), x2 = load_point(rows + 2 * stride), x3 = load_point(rows + 3 * stride);
  const Complex even = x0 + x2, odd = x1 + x3, even_difference = x0 - x2, odd_difference = times_minus_i(x1 - x3);
  Complex y1 = even - odd, y2 = even_difference + odd_difference, y3 = even_difference - odd_difference;
  if (w) {
    y1 = times<false>(y1, w + 2);
    y2 = times<false>(y2, w);
    y3 = times<false>(y3, w + 4);
  }
  store_point(even + odd, rows);
  store_point(y1, rows + stride);
  store_point(y2, rows + 2 * stride);
  store_point(y3, rows + 3 * stride);
}
HWY_INLINE void inverse_quarter_points(float* rows, int64_t stride, const float* w) {
  Complex y0 = load_point(rows), y1 = load_point(rows + stride), y2 = load_point(rows + 2 * stride), y3 = load_point(rows + 3 * stride);
  if (w) {
    y1 = times<true>(y1, w + 2);
    y2 = times<true>(y2, w);
    y3 = times<true>(y3, w + 4);
  }
  const Complex even = y0 + y1, odd = y0 - y1, sum = y2 + y3, turned = times_minus_i(y2 - y3);
  store_point(even + sum, rows);
  store_point(odd - turned, rows + stride);
  store_point(even - sum, rows + 2 * stride);
  store_point(odd + turned, rows + 3 * stride);
}

// 4^i points in place, depth first, so that what fits a cache stays in it.
void forward_quarters(float* rows, int i, const ConvRoots& roots) {
  const int64_t quarter = int64_t{1} << (2 * i - 2);
  const float* w = roots.quarters[static_cast<size_t>(i)].data();
  if (i == 1) return quarter_points(rows, kRow, nullptr);
  for (int64_t q = 0; q < quarter; ++q) quarter_points(rows + q * kRow, quarter * kRow, w + 6 * q);
  for (int64_t m = 0; m < 4; ++m) forward_quarters(rows + m * quarter * kRow, i - 1, roots);
}
void inverse_quarters(float* rows, int i, const ConvRoots& roots) {
  const int64_t quarter = int64_t{1} << (2 * i - 2);
  const float* w = roots.quarters[static_cast<size_t>(i)].data();
  if (i == 1) return inverse_quarter_points(rows, kRow, nullptr);
  for (int64_t m = 0; m < 4; ++m) inverse_quarters(rows + m * quarter * kRow, i - 1, roots);
  for (int64_t q = 0; q < quarter; ++q) inverse_quarter_points(rows + q * kRow, quarter * kRow, w + 6 * q);
}

void forward_transform(float* rows, const ConvRoots& roots) {
  const int log2 = roots.log2_points;
  if (log2 % 2 == 0) return forward_quarters(rows, log2 / 2, roots);
  float* upper = rows + (kRow << (log2 - 1));
  for (int64_t k = 0; k < int64_t{1} << (log2 - 1); ++k) {
    const Complex a = load_point(rows + k * kRow), b = load_point(upper + k * kRow);
    store_point(a + b, rows + k * kRow);
    store_point(times<false>(a - b, roots.halves.data() + 2 * k), upper + k * kRow);
  }
  forward_quarters(rows, log2 / 2, roots);
  forward_quarters(upper, log2 / 2, roots);
}
void inverse_transform(float* rows, const ConvRoots& roots) {
  const int log2 = roots.log2_points;
  if (log2 % 2 == 0) return inverse_quarters(rows, log2 / 2, roots);
  float* upper = rows + (kRow << (log2 - 1));
  inverse_quarters(rows, log2 / 2, roots);
  inverse_quarters(upper, log2 / 2, roots);
  for (int64_t k = 0; k < int64_t{1} << (log2 - 1); ++k) {
    const Complex a = load_point(rows + k * kRow), b = times<true>(load_point(upper + k * kRow), roots.halves.data() + 2 * k);
    store_point(a + b, rows + k * kRow);
    store_point(a - b, upper + k * kRow);
  }
}

// The product of the spectra of both channels of a lane with those of their filters, at a place and its mirror (conv_fft.cuh).
HWY_INLINE void multiply_places(float* z, float* z_mirror, const float* h, const float* h_mirror) {
  const Complex zp = load_point(z), zm = load_point(z_mirror), hp = load_point(h), hm = load_point(h_mirror);
  const F32 ar = hn::Add(zp.re, zm.re), ai = hn::Sub(zp.im, zm.im), br = hn::Sub(zp.re, zm.re), bi = hn::Add(zp.im, zm.im);
  const F32 har = hn::Add(hp.re, hm.re), hai = hn::Sub(hp.im, hm.im), hbr = hn::Add(hp.im, hm.im), hbi = hn::Sub(hm.re, hp.re);
  const F32 ur = hn::NegMulAdd(ai, hai, hn::Mul(ar, har)), ui = hn::MulAdd(ai, har, hn::Mul(ar, hai));
  const F32 vr = hn::NegMulAdd(bi, hbi, hn::Mul(br, hbr)), vi = hn::MulAdd(bi, hbr, hn::Mul(br, hbi));
  store_point({hn::Add(ur, vr), hn::Add(ui, vi)}, z);
  if (z_mirror != z) store_point({hn::Sub(ur, vr), hn::Sub(vi, ui)}, z_mirror);
}
void multiply_spectra(float* z, const float* h, int log2_points) {
  for (int64_t place = 0; place < 2; ++place) multiply_places(z + place * kRow, z + place * kRow, h + place * kRow, h + place * kRow);
  for (int bit = 1; bit < log2_points; ++bit)
    for (int64_t low = 0; low < int64_t{1} << (bit - 1); ++low) {
      const int64_t place = (int64_t{1} << bit) + low, mirror = (int64_t{2} << bit) - 1 - low;
      multiply_places(z + place * kRow, z + mirror * kRow, h + place * kRow, h + mirror * kRow);
    }
}

// n channels of a token, the others 0.
template <class T>
HWY_INLINE void load_channels(const T* from, int64_t n, float* row) {
  if (n == kRow) return store_point({load(from), load(from + kLanes)}, row);
  for (int64_t c = 0; c < kRow; ++c) row[c] = c < n ? to_float(from[c]) : 0.0f;
}

template <class T>
HWY_INLINE float skip_of(const Params& p, int64_t channel) {
  if (!p.skip) return 0.0f;
  return p.skip_is_f32 ? static_cast<const float*>(p.skip)[channel] : to_float(static_cast<const T*>(p.skip)[channel]);
}
// Taps [0, count) of n channels, 0 beyond the filter; skip is one more weight of the token itself.
template <class T>
void load_filter(const Params& p, int64_t channel, int64_t n, int64_t count, float scale, float* rows) {
  std::fill(rows, rows + count * kRow, 0.0f);
  for (int64_t c = 0; c < n; ++c) {
    for (int64_t s = 0; s < p.taps; ++s) rows[s * kRow + c] = scale * p.filter[(channel + c) * p.filter_stride + s];
    rows[c] += scale * skip_of<T>(p, channel + c);
  }
}

template <class T>
void run_windows(const Params& p, int64_t channel, int64_t begin, int64_t end, const ConvRoots& roots) {
  const ConvFftPlan& plan = p.plan;
  const int64_t points = plan.points(), n = std::min(kRow, p.channels - channel);
  float* const h = ConvScratch::own().at_least(static_cast<size_t>(2 * points * kRow));
  float* const z = h + points * kRow;
  // 1/4 for the halves of multiply_places, 1/P for the transform there and back.
  load_filter<T>(p, channel, n, points, 0.25f / static_cast<float>(points), h);
  forward_transform(h, roots);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / plan.windows, first = plan.first_token(item % plan.windows);
    const T* x = static_cast<const T*>(p.x.data) + b * p.x.batch + channel;
    for (int64_t i = 0; i < points; ++i) {
      const int64_t t = first + i;
      if (t >= 0 && t < p.tokens)
        load_channels(x + t * p.x.token, n, z + i * kRow);
      else
        std::fill(z + i * kRow, z + (i + 1) * kRow, 0.0f);
    }
    forward_transform(z, roots);
    multiply_spectra(z, h, plan.log2_points);
    inverse_transform(z, roots);
    T* y = static_cast<T*>(p.y.data) + b * p.y.batch + channel;
    for (int64_t i = points - plan.hop; i < points && first + i < p.tokens; ++i)
      store_row(z + i * kRow, n, y + (first + i) * p.y.token);
  }
}

void conv_fft_windows(const Params& p, const ConvShares& s, const ConvRoots& roots, int64_t begin, int64_t end) {
  const int64_t windows = p.batch * p.plan.windows;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t share = item % s.shares;
    with_float_type(p.dtype, [&](auto type) {
      run_windows<decltype(type)>(p, item / s.shares * kRow, windows * share / s.shares, windows * (share + 1) / s.shares, roots);
    });
  }
  ConvScratch::own().release_much();
}

// Tokens of an item of the direct form, and of those that are summed together.
constexpr int64_t kRun = 64, kTogether = 4;

template <class T>
void run_taps(const Params& p, int64_t channel, int64_t b, int64_t first) {
  const int64_t n = std::min(kRow, p.channels - channel), tokens = std::min(kRun, p.tokens - first), past = std::max<int64_t>(p.taps, 1) - 1;
  float* const h = ConvScratch::own().at_least(static_cast<size_t>((2 * past + 1 + kRun) * kRow + kRow));
  float* const z = h + (past + 1) * kRow;
  load_filter<T>(p, channel, n, past + 1, 1.0f, h);
  const T* x = static_cast<const T*>(p.x.data) + b * p.x.batch + channel;
  for (int64_t i = 0; i < past + (tokens + kTogether - 1) / kTogether * kTogether; ++i) {
    const int64_t t = first - past + i;
    if (t >= 0 && t < p.tokens)
      load_channels(x + t * p.x.token, n, z + i * kRow);
    else
      std::fill(z + i * kRow, z + (i + 1) * kRow, 0.0f);
  }
  T* y = static_cast<T*>(p.y.data) + b * p.y.batch + channel;
  HWY_ALIGN float row[kRow];
  const Complex zero{hn::Zero(F32Tag()), hn::Zero(F32Tag())};
  auto add = [](const Complex& w, const float* in, Complex& sum) HWY_ATTR {
    sum = {hn::MulAdd(w.re, load(in), sum.re), hn::MulAdd(w.im, load(in + kLanes), sum.im)};
  };
  // Tokens share the load of a tap.
  for (int64_t i = 0; i < tokens; i += kTogether) {
    Complex sum0 = zero, sum1 = zero, sum2 = zero, sum3 = zero;
    const float* in = z + (i + past) * kRow;
    for (int64_t s = 0; s <= past; ++s, in -= kRow) {
      const Complex w = load_point(h + s * kRow);
      add(w, in, sum0);
      add(w, in + kRow, sum1);
      add(w, in + 2 * kRow, sum2);
      add(w, in + 3 * kRow, sum3);
    }
    auto store = [&](int64_t k, const Complex& sum) HWY_ATTR {
      if (i + k >= tokens) return;
      store_point(sum, row);
      store_row(row, n, y + (first + i + k) * p.y.token);
    };
    store(0, sum0);
    store(1, sum1);
    store(2, sum2);
    store(3, sum3);
  }
}

// Items: (row of the batch, kRun tokens, a row's channels).
void conv_fft_taps(const Params& p, int64_t begin, int64_t end) {
  const int64_t groups = (p.channels + kRow - 1) / kRow, runs = (p.tokens + kRun - 1) / kRun;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t run = item / groups;
    with_float_type(p.dtype, [&](auto type) {
      run_taps<decltype(type)>(p, item % groups * kRow, run / runs, run % runs * kRun);
    });
  }
}

void conv_fft_on(const Params& p, ThreadPool& pool) {
  const int64_t groups = (p.channels + kRow - 1) / kRow;
  if (p.plan.form == ConvFftPlan::Form::taps) {
    const int64_t items = groups * p.batch * ((p.tokens + kRun - 1) / kRun);
    return pool.parallel_for(items, 1, [&](int64_t begin, int64_t end) { conv_fft_taps(p, begin, end); });
  }
  static thread_local ConvRoots roots;  // kept between calls
  roots.make(p.plan.log2_points);
  // Each share transforms the filters anew: no more of them than keep the threads busy.
  const int64_t windows = p.batch * p.plan.windows;
  const ConvShares s{groups, std::clamp<int64_t>(2 * pool.size() / groups, 1, windows)};
  const ConvRoots& made = roots;
  pool.parallel_for(groups * s.shares, 1, [&](int64_t begin, int64_t end) { conv_fft_windows(p, s, made, begin, end); });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(conv_fft_on);

void conv_fft(const ConvFftParams& p, ThreadPool& pool) {
  if (p.batch == 0 || p.tokens == 0 || p.channels == 0) return;
  HWY_DYNAMIC_DISPATCH(conv_fft_on)(p, pool);
}

}  // namespace culebra::cpu
#endif

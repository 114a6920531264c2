// Fourier transforms of P = 2^k points in shared memory, in place: forward from the order of time to bit-reversed frequencies, inverse back
// again, so that nothing is ever reordered. A pass is a butterfly of 16 points in a thread's registers, the first one of 2, 4, 8 or 16.
//
// Two real sequences are one complex one, z = a + i b. With Z[-k] at hand A[k] = (Z[k] + conj Z[-k]) / 2 and i B[k] = (Z[k] - conj Z[-k]) / 2.
// In bit-reversed order the mirror of place j, whose highest bit is m, is j ^ (2^m - 1): a negative number keeps the bits up to its lowest
// one and flips those above.
#pragma once
#include "device/barrier.h"
#include "device/launch.h"
#include "device/portable.h"
#include "device/trigonometry.h"

namespace culebra::CUL_DEVICE_NS {

CUL_DEVICE_FN float2 complex_product(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }

// a times conj(b).
CUL_DEVICE_FN float2 complex_product_conj(float2 a, float2 b) {
  return make_float2(a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y);
}

// e^(-2 pi i j / 16), j < 8.
CUL_DEVICE_FN float2 sixteenth_root(int j) {
  constexpr float kCosine = 0.923879533f, kHalf = 0.707106781f, kSine = 0.382683432f;
  switch (j) {
    case 0: return make_float2(1, 0);
    case 1: return make_float2(kCosine, -kSine);
    case 2: return make_float2(kHalf, -kHalf);
    case 3: return make_float2(kSine, -kCosine);
    case 4: return make_float2(0, -1);
    case 5: return make_float2(-kSine, -kCosine);
    case 6: return make_float2(-kHalf, -kHalf);
    default: return make_float2(-kCosine, -kSine);
  }
}

// a root, exactly where it is 1 or -i.
template <bool kInverse>
CUL_DEVICE_FN float2 times_sixteenth_root(float2 a, int j) {
  if (j == 0) return a;
  if (j == 4) return kInverse ? make_float2(-a.y, a.x) : make_float2(a.y, -a.x);
  return kInverse ? complex_product_conj(a, sixteenth_root(j)) : complex_product(a, sixteenth_root(j));
}

// The last `bits` bits of i, at most four, in reverse.
CUL_DEVICE_FN constexpr int reversed_bits(int i, int bits) {
  return ((i & 1) << 3 | (i & 2) << 1 | (i & 4) >> 1 | (i & 8) >> 3) >> (4 - bits);
}

// One window in shared memory and the roots e^(-2 pi i k / P), as products of two of 128 each.
struct Window {
  static constexpr int kRoots = 128, kLog2Roots = 7;
  static constexpr size_t shared_bytes(int log2_points) { return static_cast<size_t>(17) << (log2_points - 1); }

  float2* data;
  float2* fine;
  float2* coarse;
  int log2_points;

  CUL_DEVICE_FN int points() const { return 1 << log2_points; }
  CUL_DEVICE_FN float2& at(int i) const { return data[i + (i >> 4)]; }

  // Every thread of the block; a barrier before the first use.
  CUL_DEVICE_FN void make_roots() const {
    const float step = 2.0f / static_cast<float>(points());
    for (int k = static_cast<int>(threadIdx.x); k < 2 * kRoots; k += static_cast<int>(blockDim.x)) {
      const int j = k < kRoots ? k : (k - kRoots) * kRoots;
      float sine, cosine;
      sincospif(-step * static_cast<float>(j), &sine, &cosine);
      (k < kRoots ? fine[k] : coarse[k - kRoots]) = make_float2(cosine, sine);
    }
  }
  CUL_DEVICE_FN float2 root(int k) const { return complex_product(fine[k & (kRoots - 1)], coarse[k >> kLog2Roots]); }
};

// What a pass turns its points by, between its butterfly and the next pass: the point of frequency f by root(step)^f, back where kInverse.
// Powers 1, 2, 4 and 8 come from the tables, the others are products of two.
template <int kLog2, bool kInverse>
CUL_DEVICE_FN void turn(const Window& window, int step, float2 (&v)[1 << kLog2]) {
  constexpr int kHalf = 1 << kLog2 >> 1;
  const float2 top = window.root(step * kHalf);
  float2 low[kHalf];
#pragma unroll
  for (int f = 0; f < kHalf; ++f) {
    const int high = f >= 4 ? 4 : f >= 2 ? 2 : 1, rest = f - high;
    if (f > 0) low[f] = rest == 0 ? window.root(step * f) : complex_product(low[high], low[rest]);
    const float2 upper = f > 0 ? complex_product(top, low[f]) : top;
    float2& at = v[reversed_bits(f, kLog2)];
    float2& upper_at = v[reversed_bits(f + kHalf, kLog2)];
    if (f > 0) at = kInverse ? complex_product_conj(at, low[f]) : complex_product(at, low[f]);
    upper_at = kInverse ? complex_product_conj(upper_at, upper) : complex_product(upper_at, upper);
  }
}

template <int kLog2>
CUL_DEVICE_FN void butterfly(float2 (&v)[1 << kLog2]) {
#pragma unroll
  for (int half = (1 << kLog2) / 2; half > 0; half /= 2) {
#pragma unroll
    for (int i = 0; i < (1 << kLog2); ++i) {
      if (i & half) continue;
      const float2 a = v[i], b = v[i + half];
      v[i] = make_float2(a.x + b.x, a.y + b.y);
      v[i + half] = times_sixteenth_root<false>(make_float2(a.x - b.x, a.y - b.y), (i & (half - 1)) * (8 / half));
    }
  }
}

template <int kLog2>
CUL_DEVICE_FN void inverse_butterfly(float2 (&v)[1 << kLog2]) {
#pragma unroll
  for (int half = 1; half < (1 << kLog2); half *= 2) {
#pragma unroll
    for (int i = 0; i < (1 << kLog2); ++i) {
      if (i & half) continue;
      const float2 a = v[i], b = times_sixteenth_root<true>(v[i + half], (i & (half - 1)) * (8 / half));
      v[i] = make_float2(a.x + b.x, a.y + b.y);
      v[i + half] = make_float2(a.x - b.x, a.y - b.y);
    }
  }
}

// A pass over transforms of 2^log2_size points each, which stand behind one another; load(i) gives point i.
template <int kLog2, class Load>
CUL_DEVICE_FN void forward_pass(const Window& window, int log2_size, Load&& load) {
  constexpr int kRadix = 1 << kLog2;
  const int log2_stride = log2_size - kLog2;
  for (int g = static_cast<int>(threadIdx.x); g < window.points() >> kLog2; g += static_cast<int>(blockDim.x)) {
    const int q = g & ((1 << log2_stride) - 1), base = (g >> log2_stride << log2_size) + q;
    float2 v[kRadix];
#pragma unroll
    for (int m = 0; m < kRadix; ++m) v[m] = load(base + (m << log2_stride));
    butterfly<kLog2>(v);
    if (log2_stride > 0) turn<kLog2, false>(window, q << (window.log2_points - log2_size), v);
#pragma unroll
    for (int m = 0; m < kRadix; ++m) window.at(base + (m << log2_stride)) = v[m];
  }
}

template <int kLog2, class Store>
CUL_DEVICE_FN void inverse_pass(const Window& window, int log2_size, Store&& store) {
  constexpr int kRadix = 1 << kLog2;
  const int log2_stride = log2_size - kLog2;
  for (int g = static_cast<int>(threadIdx.x); g < window.points() >> kLog2; g += static_cast<int>(blockDim.x)) {
    const int q = g & ((1 << log2_stride) - 1), base = (g >> log2_stride << log2_size) + q;
    float2 v[kRadix];
#pragma unroll
    for (int m = 0; m < kRadix; ++m) v[m] = window.at(base + (m << log2_stride));
    if (log2_stride > 0) turn<kLog2, true>(window, q << (window.log2_points - log2_size), v);
    inverse_butterfly<kLog2>(v);
#pragma unroll
    for (int m = 0; m < kRadix; ++m) store(base + (m << log2_stride), v[m]);
  }
}

// Whole transforms, for every thread of the block. load(i) and store(i, v) stand for time; frequencies are in the window. Both end behind a
// barrier; the window must be free before forward, and written and behind a barrier before inverse.
template <class Load>
CUL_DEVICE_FN void forward_transform(const Window& window, Load&& load) {
  int log2_size = window.log2_points;
  switch (log2_size & 3) {
    case 1: forward_pass<1>(window, log2_size, load); log2_size -= 1; break;
    case 2: forward_pass<2>(window, log2_size, load); log2_size -= 2; break;
    case 3: forward_pass<3>(window, log2_size, load); log2_size -= 3; break;
    default: forward_pass<4>(window, log2_size, load); log2_size -= 4; break;
  }
  __syncthreads();
  for (; log2_size > 0; log2_size -= 4) {
    forward_pass<4>(window, log2_size, [&](int i) { return window.at(i); });
    __syncthreads();
  }
}

template <class Store>
CUL_DEVICE_FN void inverse_transform(const Window& window, Store&& store) {
  const int first = window.log2_points & 3 ? window.log2_points & 3 : 4;
  for (int log2_size = 4; log2_size <= window.log2_points - first; log2_size += 4) {
    inverse_pass<4>(window, log2_size, [&](int i, float2 v) { window.at(i) = v; });
    __syncthreads();
  }
  switch (first) {
    case 1: inverse_pass<1>(window, window.log2_points, store); break;
    case 2: inverse_pass<2>(window, window.log2_points, store); break;
    case 3: inverse_pass<3>(window, window.log2_points, store); break;
    default: inverse_pass<4>(window, window.log2_points, store); break;
  }
  __syncthreads();
}

// Two places whose frequencies are negatives of one another.
struct MirrorPlaces {
  int place, mirror;
};
// Pair u of P / 2, u > 0; places 0 and 1 are their own mirrors and are pair 0.
CUL_DEVICE_FN MirrorPlaces mirror_places(int u) {
  const int top = 31 - __clz(u);  // of u; of the place one more
  const int low = u - (1 << top);
  return {(2 << top) + low, (4 << top) - 1 - low};
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/linear_attention/conv_fft.cuh"

#include <algorithm>

#include "device/vector.h"
#include "ops/glue/tiles.cuh"
#include "ops/linear_attention/conv_fft.h"
#include "ops/linear_attention/conv_fft_taps.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = ConvFftParams;

constexpr int kThreads = 256, kManyThreads = 512;
// Tokens of a thread that goes tap by tap.
constexpr int kRun = 8;

// Pairs of channels: those of x or y, or of a copy whose pairs have their tokens behind one another.
struct PairRows {
  void* data;
  int64_t row, pair, token;  // distances in elements
  bool padded;               // beside a last odd channel there is room for a second one
};

// What a launch works on: pairs of channels from first_pair on, rows of the batch from first_row on.
struct Share {
  int64_t first_pair, pairs, first_row, rows;
  float2* filters;  // [parts][pairs][P]
  float2* inputs;   // [windows][rows][pairs][P], or null: each window makes its own
  PairRows x, y;    // from the first row and pair on
};

// Tokens of one pair.
template <class T>
struct PairTokens {
  T* first;
  int64_t stride;
  bool both, wide;

  CUL_DEVICE_FN PairTokens(const Params& p, const Share& share, const PairRows& rows, int64_t row, int64_t pair)
      : first(static_cast<T*>(rows.data) + row * rows.row + pair * rows.pair), stride(rows.token),
        both(rows.padded || 2 * (share.first_pair + pair) + 1 < p.channels), wide(both && rows.row % 2 == 0 && stride % 2 == 0) {}
  CUL_DEVICE_FN Vector<T, 2> load(int64_t t) const {
    const T* x = first + t * stride;
    return wide ? load_vector<2>(x) : Vector<T, 2>{{x[0], both ? x[1] : from_float<T>(0.0f)}};
  }
  CUL_DEVICE_FN void store(int64_t t, const Vector<T, 2>& v) const {
    T* y = first + t * stride;
    if (wide) return store_vector(y, v);
    y[0] = v[0];
    if (both) y[1] = v[1];
  }
  // 0 outside of x.
  CUL_DEVICE_FN float2 input(int64_t t, int64_t tokens) const {
    if (t < 0 || t >= tokens) return make_float2(0, 0);
    const Vector<T, 2> v = load(t);
    return make_float2(to_float(v[0]), to_float(v[1]));
  }
};

constexpr int kTileTokens = 64, kTilePairs = 32;

// Computes: a copy of x whose pairs have their tokens behind one another; kBack: y from such a copy
// Shapes:   rows x T x pairs of channels
// Layouts:  from and to as PairRows say
// Tiles:    256 threads turn 64 tokens of 32 pairs
// Shared:   8 KB, f32 17 KB
// Order:    none: a copy
// Numerics: exact
// Needs:    sm_80. Windows of a pair would read 4 bytes of each sector of x otherwise. Limit: x once from memory, the copy to L2
// Source:   none
template <class T, bool kBack>
__global__ void __launch_bounds__(kThreads) turn_pairs_kernel(Params p, Share share, PairRows from, PairRows to) {
  using Pair = Vector<T, 2>;
  CUL_SHARED(Pair, tile, [kTilePairs][kTileTokens + 1]);
  const int64_t runs = (p.tokens + kTileTokens - 1) / kTileTokens, groups = (share.pairs + kTilePairs - 1) / kTilePairs;
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t item = blockIdx.x; item < share.rows * runs * groups; item += gridDim.x) {
    const int64_t index = divide(item, groups), row = divide(index, runs);
    const int64_t pair = (item - index * groups) * kTilePairs, token = (index - row * runs) * kTileTokens;
    const int64_t pairs = share.pairs - pair, tokens = p.tokens - token;
    // Of x and y neighbouring threads have neighbouring pairs, of the copy neighbouring tokens.
    for (int i = thread; i < kTilePairs * kTileTokens; i += kThreads) {
      const int a = kBack ? i / kTileTokens : i % kTilePairs, t = kBack ? i % kTileTokens : i / kTilePairs;
      if (a < pairs && t < tokens) tile[a][t] = PairTokens<T>(p, share, from, row, pair + a).load(token + t);
    }
    __syncthreads();
    for (int i = thread; i < kTilePairs * kTileTokens; i += kThreads) {
      const int a = kBack ? i % kTilePairs : i / kTileTokens, t = kBack ? i / kTilePairs : i % kTileTokens;
      if (a < pairs && t < tokens) PairTokens<T>(p, share, to, row, pair + a).store(token + t, tile[a][t]);
    }
    __syncthreads();
  }
}

CUL_DEVICE_FN Window window_of(int log2_points) {
  CUL_DYNAMIC_SHARED(float2, data, 16);
  CUL_SHARED(float2, roots, [2 * Window::kRoots]);
  const Window window{data, roots, roots + Window::kRoots, log2_points};
  window.make_roots();
  __syncthreads();
  return window;
}

CUL_DEVICE_FN void store_spectrum(const Window& window, float2* spectrum) {
  for (int i = static_cast<int>(threadIdx.x); i < window.points(); i += static_cast<int>(blockDim.x)) spectrum[i] = window.at(i);
  __syncthreads();
}

// Computes: the spectra of the filters' parts, with skip in the first tap, divided by P
// Shapes:   filter [C,L], skip [C] -> [parts][pairs][P] complex
// Layouts:  frequencies bit-reversed
// Tiles:    a block has one part of two channels, P / 16 threads up to 512
// Shared:   8.5 P bytes, and 2 KB of roots
// Order:    fixed: a transform does not depend on its neighbours
// Numerics: f32; the division by a power of two is exact
// Needs:    sm_80. Limit: 4 bytes a tap in, 8 P bytes a pair out
// Source:   Cooley and Tukey 1965; two real sequences as a complex one: Cooley, Lewis and Welch 1970
template <class T>
__global__ void __launch_bounds__(kManyThreads) filter_spectra_kernel(Params p, Share share) {
  const Window window = window_of(p.plan.log2_points);
  const float scale = 1.0f / static_cast<float>(window.points());
  const int64_t length = p.plan.parts == 1 ? p.plan.points() : p.plan.hop;  // taps of a part
  for (int64_t item = blockIdx.x; item < share.pairs * p.plan.parts; item += gridDim.x) {
    const int64_t part = divide(item, share.pairs), channel = 2 * (share.first_pair + item - part * share.pairs);
    forward_transform(window, [&](int i) {
      const int64_t s = part * length + i;
      if (i >= length) return make_float2(0, 0);
      return make_float2(scale * tap_of<T>(p, channel, s), channel + 1 < p.channels ? scale * tap_of<T>(p, channel + 1, s) : 0.0f);
    });
    store_spectrum(window, share.filters + item * window.points());
  }
}

// Computes: the spectra of the windows of x
// Shapes:   x [B,T,C] -> [windows][rows][pairs][P] complex
// Layouts:  frequencies bit-reversed
// Tiles:    a block has one window of two channels
// Shared:   as above
// Order:    fixed
// Numerics: f32
// Needs:    sm_80; where the filter has several parts. Limit: 16 bytes out for each channel's token, once a window
// Source:   as above
template <class T>
__global__ void __launch_bounds__(kManyThreads) input_spectra_kernel(Params p, Share share) {
  const Window window = window_of(p.plan.log2_points);
  const int64_t each = share.rows * share.pairs;
  for (int64_t item = blockIdx.x; item < p.plan.windows * each; item += gridDim.x) {
    const int64_t index = divide(item, each), in_window = item - index * each, row = divide(in_window, share.pairs);
    const PairTokens<T> x(p, share, share.x, row, in_window - row * share.pairs);
    const int64_t first = p.plan.first_token(index);
    forward_transform(window, [&](int i) { return x.input(first + i, p.tokens); });
    store_spectrum(window, share.inputs + item * window.points());
  }
}

// Adds to sum and mirrored what channel a's and b's spectra in z, with their filters' in h, give at a place and at its mirror.
CUL_DEVICE_FN void add_product(float2 z, float2 z_mirror, float2 h, float2 h_mirror, float2& sum, float2& mirrored) {
  const float2 a = make_float2(z.x + z_mirror.x, z.y - z_mirror.y), ib = make_float2(z.x - z_mirror.x, z.y + z_mirror.y);
  const float2 ha = make_float2(h.x + h_mirror.x, h.y - h_mirror.y), hb = make_float2(h.y + h_mirror.y, h_mirror.x - h.x);
  const float2 u = complex_product(a, ha), v = complex_product(ib, hb);
  sum.x += 0.25f * (u.x + v.x);
  sum.y += 0.25f * (u.y + v.y);
  mirrored.x += 0.25f * (u.x - v.x);
  mirrored.y += 0.25f * (v.y - u.y);
}

// Computes: y[t] = sum_s filter[s] x[t-s] + skip x[t], the last `hop` tokens of each window
// Shapes:   x, y [B,T,C]; spectra [parts][pairs][P] and, where there are several parts, [windows][rows][pairs][P]
// Layouts:  f32, f16 or bf16, as PairRows say; two channels in one access where tokens lie at even distances
// Tiles:    a block has one window of two channels, P / 16 threads up to 512
// Shared:   8.5 P bytes, and 2 KB of roots
// Order:    fixed: parts from the nearest on
// Numerics: f32 and rounded once; the error is relative to the norms of filter and window
// Needs:    sm_80. Limit: x and y once, the filters' spectra once a row of the batch from L2; about 10 log2 P operations a point
// Source:   overlap-save: Stockham 1966; Poli et al., arXiv:2302.10866 (the operator)
template <class T>
__global__ void __launch_bounds__(kManyThreads) convolve_windows_kernel(Params p, Share share) {
  const Window window = window_of(p.plan.log2_points);
  const int points = window.points();
  const int64_t each = share.rows * share.pairs, part_points = share.pairs * points, window_points = each * points;
  for (int64_t item = blockIdx.x; item < p.plan.windows * each; item += gridDim.x) {
    const int64_t index = divide(item, each), in_window = item - index * each, row = divide(in_window, share.pairs);
    const int64_t pair = in_window - row * share.pairs;
    const int64_t first = p.plan.first_token(index);
    const float2* filters = share.filters + pair * points;
    const float2* inputs = share.inputs ? share.inputs + item * points : nullptr;
    if (!inputs) {
      const PairTokens<T> x(p, share, share.x, row, pair);
      forward_transform(window, [&](int i) { return x.input(first + i, p.tokens); });
    }
    const int64_t parts = !inputs ? 1 : index + 1 < p.plan.parts ? index + 1 : p.plan.parts;
    auto product = [&](int place, int mirror, float2& sum, float2& mirrored) {
      sum = mirrored = make_float2(0, 0);
      if (!inputs) return add_product(window.at(place), window.at(mirror), filters[place], filters[mirror], sum, mirrored);
      for (int64_t part = 0; part < parts; ++part) {
        const float2* z = inputs - part * window_points;
        const float2* h = filters + part * part_points;
        add_product(z[place], z[mirror], h[place], h[mirror], sum, mirrored);
      }
    };
    for (int u = static_cast<int>(threadIdx.x); u < points / 2; u += static_cast<int>(blockDim.x)) {
      float2 sum, mirrored;
      if (u > 0) {
        const MirrorPlaces at = mirror_places(u);
        product(at.place, at.mirror, sum, mirrored);
        window.at(at.place) = sum;
        window.at(at.mirror) = mirrored;
        continue;
      }
      for (int place = 0; place < 2; ++place) {
        product(place, place, sum, mirrored);
        window.at(place) = sum;
      }
    }
    __syncthreads();
    const PairTokens<T> y(p, share, share.y, row, pair);
    const int64_t skipped = points - p.plan.hop;
    inverse_transform(window, [&](int i, float2 v) {
      const int64_t t = first + i;
      if (i >= skipped && t < p.tokens) y.store(t, {{from_float<T>(v.x), from_float<T>(v.y)}});
    });
  }
}

// Computes: y[t] = sum_s filter[s] x[t-s] + skip x[t], tap by tap
// Shapes:   x, y [B,T,C]; filter [C,L]
// Layouts:  inner stride 1, f32, f16 or bf16; a warp has neighbouring channels
// Tiles:    a thread has eight tokens of one channel
// Shared:   none
// Order:    the nearest tap first, one FMA chain
// Numerics: f32, rounded once
// Needs:    sm_80; short filters. Limit: x and y once, 2 L operations a token
// Source:   the definition
template <class T>
__global__ void __launch_bounds__(glue::kTileThreads) convolve_taps_kernel(Params p, int64_t runs) {
  glue::for_tiles(p.batch * runs, p.channels, [&](int64_t index, int64_t channel) {
    const int64_t b = divide(index, runs), first = (index - b * runs) * kRun;
    const T* x = static_cast<const T*>(p.x.data) + b * p.x.batch + channel;
    auto input = [&](int64_t t) { return t >= 0 && t < p.tokens ? to_float(x[t * p.x.token]) : 0.0f; };
    // ring[(i - s) & 7] = x[first + i - s] at tap s: each tap brings in one token.
    float sum[kRun], ring[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      sum[i] = 0.0f;
      ring[i] = input(first + i);
    }
    for (int64_t s = 0; s < p.taps || s == 0; s += kRun) {
#pragma unroll
      for (int step = 0; step < kRun; ++step) {
        if (step > 0 && s + step >= p.taps) break;
        const float tap = tap_of<T>(p, channel, s + step);
#pragma unroll
        for (int i = 0; i < kRun; ++i) sum[i] = fmaf(tap, ring[(i - step) & (kRun - 1)], sum[i]);
        // The youngest input has met its last output: its place is the next older one's.
        ring[(kRun - 1 - step) & (kRun - 1)] = input(first - 1 - s - step);
      }
    }
    T* y = static_cast<T*>(p.y.data) + b * p.y.batch + channel;
#pragma unroll
    for (int i = 0; i < kRun; ++i)
      if (first + i < p.tokens) y[(first + i) * p.y.token] = from_float<T>(sum[i]);
  });
}

template <class T>
void run_windows(const Params& p, NativeStream stream) {
  const ConvFftPlan& plan = p.plan;
  const int threads = static_cast<int>(std::clamp<int64_t>(plan.points() / 16, 32, plan.log2_points < 14 ? kThreads : kManyThreads));
  const size_t shared = Window::shared_bytes(plan.log2_points);
  auto grid = [](int64_t items) { return dim3(static_cast<unsigned>(std::min<int64_t>(items, 1 << 30))); };
  auto* const filters = static_cast<float2*>(p.workspace);
  auto* const inputs = plan.parts > 1 ? filters + plan.filter_points() : nullptr;
  T* const copies = reinterpret_cast<T*>(filters + plan.filter_points() + plan.input_points());
  for (int64_t pair = 0; pair < p.pairs(); pair += plan.pairs_at_once) {
    Share share{pair, std::min(plan.pairs_at_once, p.pairs() - pair), 0, 0, filters, inputs, {}, {}};
    launch(filter_spectra_kernel<T>, grid(share.pairs * plan.parts), dim3(threads), shared, stream, p, share);
    for (share.first_row = 0; share.first_row < p.batch; share.first_row += plan.rows_at_once) {
      share.rows = std::min(plan.rows_at_once, p.batch - share.first_row);
      auto own = [&](const Params::Rows& rows) {
        return PairRows{static_cast<T*>(rows.data) + share.first_row * rows.batch + 2 * pair, rows.batch, 2, rows.token, false};
      };
      auto copy = [&](T* data) { return PairRows{data, 2 * p.tokens * share.pairs, 2 * p.tokens, 2, true}; };
      share.x = plan.copies ? copy(copies) : own(p.x);
      share.y = plan.copies ? copy(copies + plan.copy_elems(p.tokens)) : own(p.y);
      const int64_t items = plan.windows * share.rows * share.pairs;
      const int64_t tiles = share.rows * ((p.tokens + kTileTokens - 1) / kTileTokens) * ((share.pairs + kTilePairs - 1) / kTilePairs);
      if (plan.copies) launch(turn_pairs_kernel<T, false>, grid(tiles), dim3(kThreads), 0, stream, p, share, own(p.x), share.x);
      if (inputs) launch(input_spectra_kernel<T>, grid(items), dim3(threads), shared, stream, p, share);
      launch(convolve_windows_kernel<T>, grid(items), dim3(threads), shared, stream, p, share);
      if (plan.copies) launch(turn_pairs_kernel<T, true>, grid(tiles), dim3(kThreads), 0, stream, p, share, share.y, own(p.y));
    }
  }
}

}  // namespace

void conv_fft(const Params& p, NativeStream stream) {
  if (p.batch == 0 || p.tokens == 0 || p.channels == 0) return;
  if (p.plan.form == ConvFftPlan::Form::blocks) return conv_fft_blocks(p, stream);
  with_float(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    if (p.plan.form == ConvFftPlan::Form::windows) return run_windows<T>(p, stream);
    const int64_t runs = (p.tokens + kRun - 1) / kRun;
    const glue::TileShape shape = glue::tile_shape(p.batch * runs, p.channels);
    launch(convolve_taps_kernel<T>, shape.grid, shape.block, 0, stream, p, runs);
  });
}

}  // namespace culebra::CUL_DEVICE_NS

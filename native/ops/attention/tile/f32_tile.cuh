// The loop over a tour for f32 operands: FMAs alone, no TF32.
#pragma once
#include "device/warp.h"
#include "ops/attention/tile/key_tiles.cuh"

namespace culebra::CUL_DEVICE_NS {

// Dv up to kDim; D has no limit but shared memory. kValuesAreKeys: a value is the beginning of its key, and is not fetched again.
template <int kDim_ = 256, int kWarpRows_ = 4, bool kValuesAreKeys_ = false>
struct F32Tile {
  static constexpr int kDim = kDim_, kWarps = 4, kThreads = 32 * kWarps, kWarpRows = kWarpRows_, kRows = kWarps * kWarpRows, kKeys = 32;
  static constexpr bool kValuesAreKeys = kValuesAreKeys_;
  static constexpr int kPad = 4;  // floats: eight lanes' rows then lie in different banks
};

// Computes: softmax attention of a tile of query rows over the keys of their tour, or of one split of them, for f32.
// Shapes:   up to kRows rows of D, keys of D and Dv; Dv <= kDim.
// Layouts:  rows anywhere, as the tour says.
// Tiles:    kRows rows x 32 keys, kWarpRows a warp. A lane has one key's products, then every 32nd channel of the results.
// Shared:   one tile of queries, keys and values each, D and Dv rounded up to 4, rows padded by 16 bytes; places of the keys.
// Order:    channels ascending in one FMA chain; keys as the tour numbers them.
// Numerics: f32 FMA, no TF32; exponentials by ex2.approx, relative error about 1e-7.
// Needs:    sm_80. Limit: 2 (D + Dv) operations of the FMA pipes a visible pair.
// Source:   online softmax (Milakov and Gimelshein, arXiv:1805.02867).
template <class Tile, class Tours>
__global__ void __launch_bounds__(Tile::kThreads, 2) f32_attention(Problem p, Tours tours) {
  constexpr int kKeys = Tile::kKeys, kWarpRows = Tile::kWarpRows, kOut = Tile::kDim / 32;
  CUL_DYNAMIC_SHARED(float, shared, 128);
  const int64_t block = blockIdx.x;
  const int split = static_cast<int>(block % p.splits);
  const auto tour = tours.tour(block / p.splits);
  if (tour.rows() <= 0) return;
  const KeySpan span = key_span(p, tour, split);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int dim = (p.dim + 3) / 4 * 4, pitch = dim + Tile::kPad, value_pitch = Tile::kValuesAreKeys ? pitch : (p.value_dim + 3) / 4 * 4 + Tile::kPad;
  KeyPlace* const places = reinterpret_cast<KeyPlace*>(shared);
  float* const q = reinterpret_cast<float*>(places + kKeys);
  float* const k = q + Tile::kRows * pitch;
  float* const v = Tile::kValuesAreKeys ? k : k + kKeys * pitch;
  const Scores scores = scores_of(p, tour);

#pragma unroll 1
  for (int i = thread; i < Tile::kRows * dim; i += Tile::kThreads) {
    const int r = i / dim, c = i % dim;
    q[r * pitch + c] = r < tour.rows() && c < p.dim ? static_cast<const float*>(tour.q(r))[c] : 0.0f;
  }
  typename decltype(tour)::Row rows[kWarpRows];
  Softmax softmax[kWarpRows];
  float o[kWarpRows][kOut] = {};
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) rows[r] = tour.row(warp * kWarpRows + r);

  const int steps = span.begin < span.end ? (span.end + kKeys - 1) / kKeys : 0;
#pragma unroll 1
  for (int step = span.begin / kKeys; step < steps; ++step) {
    const int first = step * kKeys;
    __syncthreads();  // the step before has been used
    if (thread < kKeys) places[thread] = place_of(tour, span, first + thread);
    __syncthreads();
    const auto element = [&](const void* row, int c, int width) {
      if (!row || c >= width) return 0.0f;
      return p.f8 ? to_float(static_cast<const float8_e4m3_t*>(row)[c]) : static_cast<const float*>(row)[c];
    };
    if constexpr (requires { tour.template k_chunk<float>(places[0], 0, 0); }) {
#pragma unroll 1
      for (int i = thread; i < kKeys * ((dim + 7) / 8); i += Tile::kThreads) {
        const int key = i / ((dim + 7) / 8), c = i % ((dim + 7) / 8) * 8;
        const auto chunk = tour.template k_chunk<float>(places[key], first + key, c);
        for (int j = 0; j < 8 && c + j < dim; ++j) k[key * pitch + c + j] = chunk[j];
      }
#pragma unroll 1
      for (int i = thread; !Tile::kValuesAreKeys && i < kKeys * ((p.value_dim + 7) / 8); i += Tile::kThreads) {
        const int key = i / ((p.value_dim + 7) / 8), c = i % ((p.value_dim + 7) / 8) * 8;
        const auto chunk = tour.template v_chunk<float>(places[key], first + key, c);
        for (int j = 0; j < 8 && c + j < p.value_dim; ++j) v[key * value_pitch + c + j] = chunk[j];
      }
    } else {
#pragma unroll 1
      for (int i = thread; i < kKeys * dim; i += Tile::kThreads)
        k[i / dim * pitch + i % dim] = element(places[i / dim].k, i % dim, p.dim);
#pragma unroll 1
      for (int i = thread; !Tile::kValuesAreKeys && i < kKeys * p.value_dim; i += Tile::kThreads)
        v[i / p.value_dim * value_pitch + i % p.value_dim] = element(places[i / p.value_dim].v, i % p.value_dim, p.value_dim);
    }
    __syncthreads();

    float s[kWarpRows] = {};
    const float* const key = k + lane * pitch;
#pragma unroll 2
    for (int c = 0; c < dim; c += 4) {
      const float4 x = *reinterpret_cast<const float4*>(key + c);
#pragma unroll
      for (int r = 0; r < kWarpRows; ++r) {
        const float4 y = *reinterpret_cast<const float4*>(q + (warp * kWarpRows + r) * pitch + c);
        s[r] = fmaf(x.x, y.x, s[r]);
        s[r] = fmaf(x.y, y.y, s[r]);
        s[r] = fmaf(x.z, y.z, s[r]);
        s[r] = fmaf(x.w, y.w, s[r]);
      }
    }
    const int n = first + lane;
    const bool inside = n >= span.begin && n < span.end, edge = tour.edge(max(first, span.begin), min(first + kKeys, span.end));
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      s[r] = inside && (!edge || tour.sees(rows[r], n)) ? scores(s[r]) : kNoScore;
      const float factor = softmax[r].raise(warp_max(s[r]));
      s[r] = fast_exp2(s[r] - softmax[r].base());
      softmax[r].d += s[r];  // the lane's own key
#pragma unroll
      for (int i = 0; i < kOut; ++i) o[r][i] *= factor;
    }
#pragma unroll 2
    for (int j = 0; j < kKeys; ++j) {
      float weight[kWarpRows];
#pragma unroll
      for (int r = 0; r < kWarpRows; ++r) weight[r] = __shfl_sync(kFullMask, s[r], j);
#pragma unroll
      for (int i = 0; i < kOut; ++i) {
        const int c = lane + 32 * i;
        if (c >= p.value_dim) break;
        const float value = v[j * value_pitch + c];
#pragma unroll
        for (int r = 0; r < kWarpRows; ++r) o[r][i] = fmaf(weight[r], value, o[r][i]);
      }
    }
  }

#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    const int row = warp * kWarpRows + r;
    softmax[r].d = warp_sum(softmax[r].d);
    if (row >= tour.rows()) continue;
    const float factor = softmax[r].inverse(!p.partial_o ? tour.sink(row) : kNoScore) * value_scale_of(tour);
    const int64_t partial = p.partial_o ? split * p.partial_rows + tour.index(row) : 0;
    float* const to = p.partial_o ? p.partial_o + partial * p.value_dim : static_cast<float*>(tour.o(row));
    float* const lse = p.partial_o ? p.partial_lse + partial : tour.lse(row);
#pragma unroll
    for (int i = 0; i < kOut; ++i)
      if (lane + 32 * i < p.value_dim && !(p.partial_o && softmax[r].nothing())) to[lane + 32 * i] = o[r][i] * factor;
    if (lane == 0 && lse) *lse = softmax[r].lse();
  }
}

template <class Tile = F32Tile<>, class Tours>
void launch_f32(const Problem& p, const Tours& tours, int64_t tiles, NativeStream stream) {
  if (tiles == 0) return;
  const int64_t dim = (p.dim + 3) / 4 * 4 + Tile::kPad, value_dim = Tile::kValuesAreKeys ? 0 : (p.value_dim + 3) / 4 * 4 + Tile::kPad;
  const auto bytes =
      static_cast<size_t>(Tile::kKeys * static_cast<int64_t>(sizeof(KeyPlace)) + 4 * ((Tile::kRows + Tile::kKeys) * dim + Tile::kKeys * value_dim));
  launch(f32_attention<Tile, Tours>, dim3(static_cast<unsigned>(tiles * p.splits)), dim3(Tile::kThreads), bytes, stream, p, tours);
}

}  // namespace culebra::CUL_DEVICE_NS

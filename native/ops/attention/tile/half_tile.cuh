// The loop over a tour with query rows on the M side: 64 rows, 16 a warp, as FlashAttention-2 has it. Half operands.
#pragma once
#include "device/mma.h"
#include "device/warp.h"
#include "ops/attention/tile/key_tiles.cuh"

namespace culebra::CUL_DEVICE_NS {

// D and Dv up to kDim_, one of 64, 128, 256.
template <class T, int kDim_>
struct HalfTile {
  using Element = T;
  static constexpr int kDim = kDim_, kPitch = row_pitch<kDim>;
  static constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16 * kWarps, kKeys = kDim > 128 ? 32 : 64;
  static constexpr int kBlocksPerSm = kDim > 64 ? 2 : 4;  // by registers
  static constexpr int kKeysAt = kRows * kPitch * 2, kValuesAt = kKeysAt + kKeys * kPitch * 2, kPlacesAt = kValuesAt + kKeys * kPitch * 2;
  static constexpr int kSharedBytes = kPlacesAt + 2 * kKeys * static_cast<int>(sizeof(KeyPlace));
  static_assert(kSharedBytes <= 99 << 10, "sm_86 and sm_89 have 99 KB for a block");
};

// A lane's part of a warp's 16 rows: rows g and g + 8, channels 8 i + 2 t and the next.
template <class Tile>
struct HalfRows {
  Softmax softmax[2];  // d: of the lane's own keys, until finish()
  float o[Tile::kDim / 8][4] = {};

  CUL_DEVICE_FN void finish() {
#pragma unroll
    for (int half = 0; half < 2; ++half) softmax[half].d = warp_sum<4>(softmax[half].d);
  }
};

// The keys of `span` enter `state`, which begins anew or goes on. Every thread of the block calls; p.dim and p.value_dim are up to kDim.
// Shared memory: Tile::kSharedBytes, of which the query rows, at its beginning, are free afterwards.
template <class Tile, class Tour>
CUL_DEVICE_FN void attend_half(const Problem& p, const Tour& tour, KeySpan span, unsigned char* shared, HalfRows<Tile>& state) {
  using T = typename Tile::Element;
  constexpr int kKeys = Tile::kKeys, kPitch = Tile::kPitch, kThreads = Tile::kThreads;
  T* const q = reinterpret_cast<T*>(shared);
  T* const k = reinterpret_cast<T*>(shared + Tile::kKeysAt);
  T* const v = reinterpret_cast<T*>(shared + Tile::kValuesAt);
  KeyPlace* const places = reinterpret_cast<KeyPlace*>(shared + Tile::kPlacesAt);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int first_step = span.begin / kKeys, steps = span.begin < span.end ? (span.end + kKeys - 1) / kKeys : first_step;
  const Scores scores = scores_of(p, tour);
  const typename Tour::Row rows[2] = {tour.row(warp * 16 + lane / 4), tour.row(warp * 16 + lane / 4 + 8)};

  const auto find_places = [&](int step) {
    if (thread < kKeys && step < steps) places[step % 2 * kKeys + thread] = place_of(tour, span, step * kKeys + thread);
  };
  find_places(first_step);
  fetch_rows<Tile::kRows, kThreads, Tile::kDim>(q, p.dim, p.aligned != 0, p.anywhere, thread,
                                                [&](int r) { return r < tour.rows() ? tour.q(r) : nullptr; });
  __syncthreads();
  if (first_step < steps)
    fetch_keys<Side::keys, kKeys, kThreads, Tile::kDim>(k, p, tour, places + first_step % 2 * kKeys, first_step * kKeys, thread);
  cp_async_commit();

#pragma unroll 1
  for (int step = first_step; step < steps; ++step) {
    const int first = step * kKeys;
    cp_async_wait<0>();
    __syncthreads();  // the keys are there, and the values before them have been used
    fetch_keys<Side::values, kKeys, kThreads, Tile::kDim>(v, p, tour, places + step % 2 * kKeys, first, thread);
    cp_async_commit();
    find_places(step + 1);

    float s[kKeys / 8][4] = {};
#pragma unroll
    for (int c = 0; c < Tile::kDim; c += 16) {
      if (c >= p.dim) break;
      uint32_t a[4];
      ldmatrix_x4(a, shared_address(q + (warp * 16 + lane % 16) * kPitch + c + lane / 16 * 8));
#pragma unroll
      for (int i = 0; i < kKeys / 16; ++i) {
        uint32_t b[4];
        ldmatrix_x4(b, shared_address(k + (i * 16 + lane / 16 * 8 + lane % 8) * kPitch + c + lane / 8 % 2 * 8));
        mma_m16n8k16<T>(s[2 * i], a, b[0], b[1]);
        mma_m16n8k16<T>(s[2 * i + 1], a, b[2], b[3]);
      }
    }

    const bool edge = first < span.begin || first + kKeys > span.end || tour.edge(max(first, span.begin), min(first + kKeys, span.end));
    scores.apply(s);
    if (edge) {
#pragma unroll
      for (int i = 0; i < kKeys / 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int n = first + i * 8 + lane % 4 * 2 + j % 2;
          if (n < span.begin || n >= span.end || !tour.sees(rows[j / 2], n)) s[i][j] = kNoScore;
        }
    }
    float highest[2] = {kNoScore, kNoScore};
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) highest[j / 2] = fmaxf(highest[j / 2], s[i][j]);
    float factor[2], base[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      factor[half] = state.softmax[half].raise(warp_max<4>(highest[half]));
      base[half] = state.softmax[half].base();
    }
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] = fast_exp2(s[i][j] - base[j / 2]);
        state.softmax[j / 2].d += s[i][j];
      }
#pragma unroll
    for (int i = 0; i < Tile::kDim / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) state.o[i][j] *= factor[j / 2];

    cp_async_wait<0>();
    __syncthreads();  // the values are there, and the keys have been used
    if (step + 1 < steps)
      fetch_keys<Side::keys, kKeys, kThreads, Tile::kDim>(k, p, tour, places + (step + 1) % 2 * kKeys, first + kKeys, thread);
    cp_async_commit();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      const uint32_t a[4] = {pack2<T>(s[2 * i][0], s[2 * i][1]), pack2<T>(s[2 * i][2], s[2 * i][3]),
                             pack2<T>(s[2 * i + 1][0], s[2 * i + 1][1]), pack2<T>(s[2 * i + 1][2], s[2 * i + 1][3])};
#pragma unroll
      for (int c = 0; c < Tile::kDim; c += 16) {
        if (c >= p.value_dim) break;
        uint32_t b[4];
        ldmatrix_x4_trans(b, shared_address(v + (i * 16 + lane % 16) * kPitch + c + lane / 16 * 8));
        mma_m16n8k16<T>(state.o[c / 8], a, b[0], b[1]);
        mma_m16n8k16<T>(state.o[c / 8 + 1], a, b[2], b[3]);
      }
    }
  }
  cp_async_wait<0>();
  __syncthreads();
}

// What attend_half leaves, to o and lse, or to the partial results of a split.
template <class Tile, class Tour>
CUL_DEVICE_FN void store_half(const Problem& p, const Tour& tour, int split, unsigned char* shared, HalfRows<Tile>& state) {
  using T = typename Tile::Element;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  state.finish();
  T* const out = reinterpret_cast<T*>(shared) + warp * 16 * Tile::kPitch;  // the warp's rows
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + half * 8, r = warp * 16 + row;
    const bool exists = r < tour.rows();
    const float factor = state.softmax[half].inverse(!p.partial_o && exists ? tour.sink(r) : kNoScore) * value_scale_of(tour);
    const int64_t partial = p.partial_o && exists ? split * p.partial_rows + tour.index(r) : 0;
#pragma unroll
    for (int i = 0; i < Tile::kDim / 8; ++i) {
      const int c = i * 8 + lane % 4 * 2;
      const float x = state.o[i][2 * half] * factor, y = state.o[i][2 * half + 1] * factor;
      if (!p.partial_o) {
        *reinterpret_cast<uint32_t*>(out + row * Tile::kPitch + c) = pack2<T>(x, y);
      } else if (exists && !state.softmax[half].nothing()) {
        float* const to = p.partial_o + partial * p.value_dim;
        if (c < p.value_dim) to[c] = x;
        if (c + 1 < p.value_dim) to[c + 1] = y;
      }
    }
    if (!exists || lane % 4 != 0) continue;
    if (p.partial_o)
      p.partial_lse[partial] = state.softmax[half].lse();
    else if (float* const lse = tour.lse(r))
      *lse = state.softmax[half].lse();
  }
  if (p.partial_o) return;
  __syncwarp();
  for (int row = 0; row < 16; ++row) {
    const int r = warp * 16 + row;
    if (r >= tour.rows()) break;
    T* const to = static_cast<T*>(tour.o(r));
    const T* const from = out + row * Tile::kPitch;
    if (p.aligned) {
      for (int c = lane * 8; c < p.value_dim; c += 256) store_vector(to + c, load_vector<8>(from + c));
    } else {
      for (int c = lane; c < p.value_dim; c += 32) to[c] = from[c];
    }
  }
}

// Computes: softmax attention of a tile of query rows over the keys of their tour, or of one split of them.
// Shapes:   up to 64 rows of D, keys of D and Dv; D, Dv <= kDim.
// Layouts:  rows anywhere, as the tour says; 16-byte copies where all of them are aligned.
// Tiles:    64 rows x 64 keys (kDim 256: 32), 16 rows a warp.
// Shared:   one tile of queries, keys and values each, rows padded by 16 bytes; where the keys of two steps lie.
// Order:    keys as the tour numbers them; sums of 8 keys a lane, four lanes a row at the end.
// Numerics: scores and sums f32, weights rounded to T for the second product; exponentials by ex2.approx.
// Needs:    sm_80 (cp.async, mma.m16n8k16). Limit: 2 (D + Dv) operations a visible pair.
// Source:   Dao, FlashAttention-2, arXiv:2307.08691; tours ours.
template <class Tile, class Tours>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm) half_attention(Problem p, Tours tours) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const int64_t block = blockIdx.x;
  const int split = static_cast<int>(block % p.splits);
  const auto tour = tours.tour(block / p.splits);
  if (tour.rows() <= 0) return;
  HalfRows<Tile> state;
  attend_half<Tile>(p, tour, key_span(p, tour, split), shared, state);
  store_half<Tile>(p, tour, split, shared, state);
}

template <class Tile, class Tours>
void launch_half(const Problem& p, const Tours& tours, int64_t tiles, NativeStream stream) {
  if (tiles == 0) return;
  launch(half_attention<Tile, Tours>, dim3(static_cast<unsigned>(tiles * p.splits)), dim3(Tile::kThreads), Tile::kSharedBytes, stream, p,
         tours);
}

}  // namespace culebra::CUL_DEVICE_NS

// The loop over a tour of few rows, for decoding: keys on the M side, up to 8 or 16 query rows on the N side, whatever the group is.
// Half operands.
//
// Each warp has key tiles, a ring of copies and a softmax of its own: no barrier holds it back before the block's end, where the warps' states
// are merged. The products' sums have the layout that the second product wants transposed, 8 x 8 at a time.
#pragma once
#include "device/mma.h"
#include "device/warp.h"
#include "ops/attention/tile/key_tiles.cuh"

namespace culebra::CUL_DEVICE_NS {

// D and Dv up to kDim_, 128 or 256; 8 kRowTiles_ rows, of 256 channels 8.
template <class T, int kDim_, int kRowTiles_>
struct FewRowsTile {
  using Element = T;
  static constexpr int kDim = kDim_, kPitch = row_pitch<kDim>, kRowTiles = kRowTiles_, kRows = 8 * kRowTiles;
  static constexpr int kWarps = kDim > 128 ? 2 : 4, kThreads = 32 * kWarps, kKeys = 16, kStages = 2;
  static constexpr int kBlocksPerSm = kDim <= 128 && kRowTiles > 1 ? 2 : 3;  // by registers
  static constexpr int kTileBytes = kKeys * kPitch * 2, kWarpBytes = kStages * 2 * kTileBytes + kKeys * static_cast<int>(sizeof(KeyPlace));
  static constexpr int kSumPitch = kDim + 4, kStateBytes = kRows * (kSumPitch * 4 + static_cast<int>(sizeof(Softmax)));  // of a warp
  static constexpr int kSharedBytes = kWarps * (kWarpBytes > kStateBytes ? kWarpBytes : kStateBytes);
  static_assert(kDim <= 128 || kRowTiles == 1, "more results than registers");
  static_assert(kSharedBytes <= 99 << 10, "sm_86 and sm_89 have 99 KB for a block");
};

// Computes: softmax attention of up to 16 query rows over the keys of their tour, or of one split of them.
// Shapes:   up to 8 kRowTiles rows of D, keys of D and Dv; D, Dv <= kDim.
// Layouts:  rows anywhere, as the tour says; 16-byte copies where all of them are aligned.
// Tiles:    16 keys a warp and step, warps in turn; all rows in every warp.
// Shared:   two stages of 16 keys and values a warp, rows padded by 16 bytes; then the warps' results in f32.
// Order:    keys as the tour numbers them within a warp, 2 of 16 a lane; lanes by halves; warps ascending.
// Numerics: scores and sums f32, weights rounded to T for the second product; exponentials by ex2.approx.
// Needs:    sm_80 (cp.async, mma.m16n8k16, movmatrix). Limit: the bytes of keys and values, once.
// Source:   split keys as in Flash-Decoding (Dao et al. 2023); operand order ours.
template <class Tile, class Tours>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm) few_rows_attention(Problem p, Tours tours) {
  using T = typename Tile::Element;
  constexpr int kKeys = Tile::kKeys, kPitch = Tile::kPitch, kStages = Tile::kStages, kRowTiles = Tile::kRowTiles, kDim = Tile::kDim;
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const int64_t block = blockIdx.x;
  const int split = static_cast<int>(block % p.splits);
  const auto tour = tours.tour(block / p.splits);
  if (tour.rows() <= 0) return;
  const KeySpan span = key_span(p, tour, split);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  unsigned char* const mine = shared + warp * Tile::kWarpBytes;
  KeyPlace* const places = reinterpret_cast<KeyPlace*>(mine + kStages * 2 * Tile::kTileBytes);
  const auto tile = [&](int turn, int side) { return reinterpret_cast<T*>(mine + (turn % kStages * 2 + side) * Tile::kTileBytes); };
  const Scores scores = scores_of(p, tour);

  // The rows as operand B: row g of each eight, channels 2 t, 2 t + 1 and + 8.
  uint32_t q[kRowTiles][kDim / 16][2];
  typename decltype(tour)::Row rows[kRowTiles][2];
  Softmax softmax[kRowTiles][2];  // of rows 2 t and 2 t + 1; d: of the lane's own keys
  float o[kRowTiles][kDim / 16][4] = {};
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i) {
    const int r = i * 8 + lane / 4;
    const T* const row = r < tour.rows() ? static_cast<const T*>(tour.q(r)) : nullptr;
#pragma unroll
    for (int c = 0; c < kDim / 16; ++c)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int at = c * 16 + half * 8 + lane % 4 * 2;
        q[i][c][half] = pack_bits(row && at < p.dim ? row[at].bits : uint16_t{0}, row && at + 1 < p.dim ? row[at + 1].bits : uint16_t{0});
      }
#pragma unroll
    for (int j = 0; j < 2; ++j) rows[i][j] = tour.row(i * 8 + lane % 4 * 2 + j);
  }

  // The warp's steps are every kWarps-th of the tour's.
  const int first_step = span.begin / kKeys + warp, all = span.begin < span.end ? (span.end + kKeys - 1) / kKeys : 0;
  const int turns = first_step < all ? (all - first_step + Tile::kWarps - 1) / Tile::kWarps : 0;
  const auto key = [&](int turn) { return (first_step + turn * Tile::kWarps) * kKeys; };
  const auto find_place = [&](int turn) {
    return turn < turns && lane < kKeys ? place_of(tour, span, key(turn) + lane) : KeyPlace{nullptr, nullptr};
  };
  KeyPlace next = find_place(0);
  const auto fetch = [&](int turn) {  // of `next`, which then is the following turn's
    if (turn < turns) {
      if (lane < kKeys) places[lane] = next;
      __syncwarp();
      fetch_keys<Side::keys, kKeys, 32, kDim>(tile(turn, 0), p, tour, places, key(turn), lane);
      fetch_keys<Side::values, kKeys, 32, kDim>(tile(turn, 1), p, tour, places, key(turn), lane);
      next = find_place(turn + 1);
    }
    cp_async_commit();
  };
#pragma unroll
  for (int turn = 0; turn < kStages - 1; ++turn) {
    fetch(turn);
    __syncwarp();
  }

#pragma unroll 1
  for (int turn = 0; turn < turns; ++turn) {
    fetch(turn + kStages - 1);
    cp_async_wait<kStages - 1>();
    __syncwarp();
    const T* const k = tile(turn, 0);
    const T* const v = tile(turn, 1);
    const int first = key(turn);
    float s[kRowTiles][4] = {};
#pragma unroll
    for (int c = 0; c < kDim / 16; ++c) {
      if (c * 16 >= p.dim) break;
      uint32_t a[4];
      ldmatrix_x4(a, shared_address(k + lane % 16 * kPitch + c * 16 + lane / 16 * 8));
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) mma_m16n8k16<T>(s[i], a, q[i][c][0], q[i][c][1]);
    }
    const bool edge = first < span.begin || first + kKeys > span.end || tour.edge(max(first, span.begin), min(first + kKeys, span.end));
    scores.apply(s);
    uint32_t weights[kRowTiles][2];
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int n = first + lane / 4 + j / 2 * 8;
        if (edge && (n < span.begin || n >= span.end || !tour.sees(rows[i][j % 2], n))) s[i][j] = kNoScore;
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float highest = fmaxf(s[i][j], s[i][j + 2]);
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2) highest = fmaxf(highest, __shfl_xor_sync(kFullMask, highest, offset));
        Softmax& state = softmax[i][j];
        const float factor = state.raise(highest), base = state.base();
        s[i][j] = fast_exp2(s[i][j] - base);
        s[i][j + 2] = fast_exp2(s[i][j + 2] - base);
        state.d += s[i][j] + s[i][j + 2];
#pragma unroll
        for (int c = 0; c < kDim / 16; ++c) o[i][c][j] *= factor, o[i][c][j + 2] *= factor;
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) weights[i][half] = movmatrix_trans(pack2<T>(s[i][2 * half], s[i][2 * half + 1]));
    }
#pragma unroll
    for (int c = 0; c < kDim / 16; ++c) {
      if (c * 16 >= p.value_dim) break;
      uint32_t a[4];
      ldmatrix_x4_trans(a, shared_address(v + (lane % 8 + lane / 16 * 8) * kPitch + c * 16 + lane / 8 % 2 * 8));
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) mma_m16n8k16<T>(o[i][c], a, weights[i][0], weights[i][1]);
    }
    __syncwarp();
  }
  cp_async_wait<0>();
  __syncthreads();

  // The warps' states side by side, then merged in their order: a warp finishes every kWarps-th row.
  Softmax* const states = reinterpret_cast<Softmax*>(shared);  // [warps][rows]
  float* const sums = reinterpret_cast<float*>(states + Tile::kWarps * Tile::kRows);
#pragma unroll
  for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      Softmax& state = softmax[i][j];
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) state.d += __shfl_xor_sync(kFullMask, state.d, offset);
      const int r = warp * Tile::kRows + i * 8 + lane % 4 * 2 + j;
      if (lane < 4) states[r] = state;
#pragma unroll
      for (int c = 0; c < kDim / 16; ++c) {
        sums[r * Tile::kSumPitch + c * 16 + lane / 4] = o[i][c][j];
        sums[r * Tile::kSumPitch + c * 16 + lane / 4 + 8] = o[i][c][j + 2];
      }
    }
  __syncthreads();
  for (int r = warp; r < tour.rows(); r += Tile::kWarps) {
    Softmax total;
    for (int w = 0; w < Tile::kWarps; ++w) total.merge(states[w * Tile::kRows + r]);
    const float inverse = total.inverse(!p.partial_o ? tour.sink(r) : kNoScore) * value_scale_of(tour);
    float factor[Tile::kWarps];
#pragma unroll
    for (int w = 0; w < Tile::kWarps; ++w) factor[w] = fast_exp2(states[w * Tile::kRows + r].m - total.base()) * inverse;
    float* const first = sums + r * Tile::kSumPitch;
    for (int c = lane; c < p.value_dim; c += 32) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < Tile::kWarps; ++w) sum = fmaf(factor[w], first[w * Tile::kRows * Tile::kSumPitch + c], sum);
      first[c] = sum;
    }
    const int64_t partial = p.partial_o ? split * p.partial_rows + tour.index(r) : 0;
    float* const lse = p.partial_o ? p.partial_lse + partial : tour.lse(r);
    if (lane == 0 && lse) *lse = total.lse();
    __syncwarp();
    if (p.partial_o && total.nothing()) continue;
    if (p.partial_o)
      store_row<float, 32>(p.partial_o + partial * p.value_dim, first, p.value_dim, false, lane);
    else
      store_row<T, 32>(static_cast<T*>(tour.o(r)), first, p.value_dim, p.aligned != 0, lane);
  }
}

template <class Tile, class Tours>
void launch_few_rows(const Problem& p, const Tours& tours, int64_t tiles, NativeStream stream) {
  if (tiles == 0) return;
  launch(few_rows_attention<Tile, Tours>, dim3(static_cast<unsigned>(tiles * p.splits)), dim3(Tile::kThreads), Tile::kSharedBytes, stream, p,
         tours);
}

}  // namespace culebra::CUL_DEVICE_NS

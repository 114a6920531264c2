// The loop over a tour of a latent cache: keys of 576 channels whose first 512 are the values. 16 query rows, half operands.
#pragma once
#include "device/mma.h"
#include "device/warp.h"
#include "ops/attention/mla_attention.h"
#include "ops/attention/tile/dense_tour.cuh"
#include "ops/attention/tile/key_tiles.cuh"

namespace culebra::CUL_DEVICE_NS {

// A u8 token (mla_attention.h). aligned: it lies at a multiple of 16 bytes; otherwise at any address.
CUL_DEVICE_FN uint32_t token_bits(const unsigned char* token, int at, int count) {
  uint32_t bits = 0;
  for (int i = 0; i < count; ++i) bits |= static_cast<uint32_t>(token[at + i]) << (8 * i);
  return bits;
}
CUL_DEVICE_FN float token_scale(const unsigned char* token, int group, bool aligned) {
  const int at = kLatentScalesAt + 4 * group;
  return aligned ? *reinterpret_cast<const float*>(token + at) : numeric::bits_float(token_bits(token, at, 4));
}
// Eight channels from c on, not yet scaled: exact in any T.
template <class T>
CUL_DEVICE_FN Eight<T> latent_chunk(const unsigned char* token, int c, bool aligned) {
  Eight<T> to;
  if (c >= kLatentValueDim) {
    const int at = kLatentTailAt + 2 * (c - kLatentValueDim);
    Vector<bfloat16_t, 8> tail;
    if (aligned) {
      tail = load_vector<8>(reinterpret_cast<const bfloat16_t*>(token + at));
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) tail[i] = bfloat16_t{static_cast<uint16_t>(token_bits(token, at + 2 * i, 2))};
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i] = from_float<T>(to_float(tail[i]));
    return to;
  }
  Vector<float8_e4m3_t, 8> values;
  if (aligned) {
    values = load_vector<8>(reinterpret_cast<const float8_e4m3_t*>(token + c));
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = float8_e4m3_t{token[c + i]};
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = from_float<T>(to_float(values[i]));
  return to;
}

// Rows are (query, head). Keys are a sequence's positions, behind its page table, or a query's list of rows of the cache.
struct LatentTour : IntervalTour {
  ByteRows cache;
  const int32_t* list;  // page table, or rows of the cache
  int32_t page_size, indexed, bytes, aligned;  // bytes: u8 tokens

  CUL_DEVICE_FN KeyPlace place(int n) const {
    const int entry = list[indexed ? n : n / page_size];
    if (entry < 0) return {nullptr, nullptr};
    const char* const row = indexed ? cache.at(entry / page_size, entry % page_size, 0) : cache.at(entry, n % page_size, 0);
    return {row, row};
  }
  CUL_DEVICE_FN bool edge(int first, int last) const { return indexed || IntervalTour::edge(first, last); }
  CUL_DEVICE_FN bool sees(const Row& row, int n) const { return IntervalTour::sees(row, n) && (!indexed || list[n] >= 0); }

  template <class T>
  CUL_DEVICE_FN Eight<T> k_chunk(const KeyPlace& place, int, int c) const {
    Eight<T> to{};
    if (!place.k) return to;
    if (bytes) {
      const auto* const token = static_cast<const unsigned char*>(place.k);
      to = latent_chunk<T>(token, c, aligned != 0);
      if (c >= kLatentValueDim) return to;
      const float scale = token_scale(token, c / static_cast<int>(kLatentScaleChannels), aligned != 0);
#pragma unroll
      for (int i = 0; i < 8; ++i) to[i] = from_float<T>(to_float(to[i]) * scale);
      return to;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) to[i] = static_cast<const T*>(place.k)[c + i];
    return to;
  }
  template <class T>
  CUL_DEVICE_FN Eight<T> v_chunk(const KeyPlace& place, int n, int c) const {
    return k_chunk<T>(place, n, c);
  }
};

struct LatentTours {
  IntervalRows rows;
  ByteRows cache;
  const int32_t* page_table;
  const int32_t* kv_len;
  const int32_t* indices;
  const int32_t* topk_len;
  int64_t table_stride, key_rows, indices_batch, indices_query, topk_len_batch;
  int32_t page_size, queries, tile_rows, row_tiles, bytes, aligned;  // row_tiles: of a sequence; indexed: of a query

  CUL_DEVICE_FN LatentTour tour(int64_t index) const {
    const int first_row = static_cast<int>(index % row_tiles) * tile_rows;
    if (!indices) {
      const int b = static_cast<int>(index / row_tiles), keys = static_cast<int>(min(int64_t{kv_len[b]}, key_rows));
      return {IntervalTour(rows, b, 0, 0, queries, keys, first_row, tile_rows, int64_t{b} * queries), cache, page_table + b * table_stride, page_size,
              0, bytes, aligned};
    }
    const int64_t query = index / row_tiles;
    const int b = static_cast<int>(query / queries), s = static_cast<int>(query % queries);
    const int64_t entries = topk_len ? min(int64_t{topk_len[b * topk_len_batch + s]}, key_rows) : key_rows;
    return {IntervalTour(rows, b, 0, s, 1, static_cast<int>(entries), first_row, tile_rows, query), cache,
            indices + b * indices_batch + s * indices_query, page_size, 1, bytes, aligned};
  }
};

template <class T>
struct LatentTile {
  using Element = T;
  static constexpr int kDim = 576, kValueDim = 512, kPitch = kDim + 8, kChunks = kDim / 8;
  static constexpr int kWarps = 8, kThreads = 32 * kWarps, kRows = 16, kKeys = 32, kStages = 2;
  static constexpr int kScorePitch = kKeys + 8, kGroups = 4;  // of channels with a scale of their own
  static constexpr int kTileBytes = kKeys * kPitch * 2, kKeysAt = kRows * kPitch * 2, kScoresAt = kKeysAt + kStages * kTileBytes;
  static constexpr int kFactorsAt = kScoresAt + 2 * kRows * kScorePitch * 4, kScalesAt = kFactorsAt + kRows * 4;
  static constexpr int kPlacesAt = kScalesAt + kStages * kKeys * kGroups * 4;
  static constexpr int kSharedBytes = kPlacesAt + kStages * kKeys * static_cast<int>(sizeof(KeyPlace));
  static_assert(kSharedBytes <= 99 << 10, "sm_86 and sm_89 have 99 KB for a block");
};

// Computes: softmax attention of 16 query rows over the latent keys of their tour, or of one split of them.
// Shapes:   up to 16 rows of 576; keys of 576, whose first 512 channels are the values.
// Layouts:  rows anywhere, as the tour says; tokens in T, or of 656 bytes, which are widened to T on their way.
// Tiles:    16 rows x 32 keys. Products: a warp has 8 keys and 256 or 320 channels; results: 64 channels a warp.
// Shared:   the queries, two stages of keys, rows padded by 16 bytes; scores of both halves, then weights; a key's scales, a row's factor.
// Order:    channels ascending by runs of 128 in each half, then the halves; keys as the tour numbers them, two a thread, 16 threads a row.
// Numerics: scores and sums f32, weights rounded to T. e4m3 enters exactly: scales multiply sums of 128 channels, and weights before they are
//           rounded. Exponentials by ex2.approx.
// Needs:    sm_80 (cp.async, mma.m16n8k16). Limit: the cache's bytes, once for each 16 rows, from HBM only once.
// Source:   DeepSeek-V2, arXiv:2405.04434 (absorbed form); the kernel ours.
template <class T>
__global__ void __launch_bounds__(LatentTile<T>::kThreads, 2) latent_attention(Problem p, LatentTours tours) {
  using Tile = LatentTile<T>;
  constexpr int kKeys = Tile::kKeys, kPitch = Tile::kPitch;
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const int64_t block = blockIdx.x;
  const int split = static_cast<int>(block % p.splits);
  const LatentTour tour = tours.tour(block / p.splits);
  if (tour.rows() <= 0) return;
  const KeySpan span = key_span(p, tour, split);
  const Scores scores(p.scale, p.softcap);
  T* const q = reinterpret_cast<T*>(shared);
  float* const products = reinterpret_cast<float*>(shared + Tile::kScoresAt);  // [halves][rows][kScorePitch]
  float* const factors = reinterpret_cast<float*>(shared + Tile::kFactorsAt);
  float* const scales = reinterpret_cast<float*>(shared + Tile::kScalesAt);  // [stages][keys][groups]
  KeyPlace* const places = reinterpret_cast<KeyPlace*>(shared + Tile::kPlacesAt);
  const auto keys = [&](int step) { return reinterpret_cast<T*>(shared + Tile::kKeysAt + step % Tile::kStages * Tile::kTileBytes); };
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int first_step = span.begin / kKeys, steps = span.begin < span.end ? (span.end + kKeys - 1) / kKeys : first_step;

  const auto find_places = [&](int step) {
    if (thread < kKeys && step < steps) places[step % 2 * kKeys + thread] = place_of(tour, span, step * kKeys + thread);
  };
  const auto fetch = [&](int step) {
    T* const to = keys(step);
    if (p.f8 && thread < kKeys * Tile::kGroups) {
      const auto* const token = static_cast<const unsigned char*>(places[step % 2 * kKeys + thread / Tile::kGroups].k);
      scales[step % 2 * kKeys * Tile::kGroups + thread] = token ? token_scale(token, thread % Tile::kGroups, p.aligned != 0) : 0.0f;
    }
    for (int i = thread; i < kKeys * Tile::kChunks; i += Tile::kThreads) {
      const int row = i / Tile::kChunks, c = i % Tile::kChunks * 8;
      const void* const from = places[step % 2 * kKeys + row].k;
      if (p.f8) {
        store_vector(to + row * kPitch + c, from ? latent_chunk<T>(static_cast<const unsigned char*>(from), c, p.aligned != 0) : Eight<T>{});
      } else if (p.aligned) {
        cp_async_l2(shared_address(to + row * kPitch + c), from ? static_cast<const T*>(from) + c : p.anywhere, from != nullptr);
      } else {
        store_vector(to + row * kPitch + c, from ? load_chunk<T>(static_cast<const T*>(from), c, Tile::kDim) : Eight<T>{});
      }
    }
  };
  find_places(first_step);
  for (int i = thread; i < Tile::kRows * Tile::kChunks; i += Tile::kThreads) {
    const int r = i / Tile::kChunks, c = i % Tile::kChunks * 8;
    Eight<T> chunk{};
    if (r < tour.rows()) {
      const T* const row = static_cast<const T*>(tour.q(r));
      chunk = p.aligned ? load_vector<8>(row + c) : load_chunk<T>(row, c, Tile::kDim);
    }
    store_vector(q + r * kPitch + c, chunk);
  }
  __syncthreads();
  if (first_step < steps) fetch(first_step);
  cp_async_commit();

  // The softmax of row thread / 16 is in its 16 threads, the results of 64 channels in each warp.
  const int row = thread / 16, pair = thread % 16 * 2;
  const LatentTour::Row seen = tour.row(row);
  Softmax softmax;  // d: of the thread's own keys
  float o[8][4] = {};

#pragma unroll 1
  for (int step = first_step; step < steps; ++step) {
    const int first = step * kKeys;
    find_places(step + 1);
    cp_async_wait<0>();
    __syncthreads();  // this step's keys and the next ones' places are there, and everybody has left the step before
    if (step + 1 < steps) fetch(step + 1);
    cp_async_commit();

    float s[4] = {};
    const int tile = warp % 4, half = warp / 4;
    const T* const k = keys(step);
    const float* const scale = scales + step % 2 * kKeys * Tile::kGroups;
#pragma unroll 1
    for (int run = half * 2; run < half * 3 + 2; ++run) {  // of 128 channels; the last of 64
      float sum[4] = {};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int c = run * 128 + i * 16;
        if (c >= Tile::kDim) break;
        uint32_t a[4], b[2];
        ldmatrix_x4(a, shared_address(q + lane % 16 * kPitch + c + lane / 16 * 8));
        ldmatrix_x2(b, shared_address(k + (tile * 8 + lane % 8) * kPitch + c + lane / 8 % 2 * 8));
        mma_m16n8k16<T>(sum, a, b[0], b[1]);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j)
        s[j] = fmaf(sum[j], p.f8 && run < Tile::kGroups ? scale[(tile * 8 + lane % 4 * 2 + j % 2) * Tile::kGroups + run] : 1.0f, s[j]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j)
      products[(half * Tile::kRows + lane / 4 + j / 2 * 8) * Tile::kScorePitch + tile * 8 + lane % 4 * 2 + j % 2] = s[j];
    __syncthreads();

    const bool edge = first < span.begin || first + kKeys > span.end || tour.edge(max(first, span.begin), min(first + kKeys, span.end));
    float x[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float* const product = products + row * Tile::kScorePitch + pair + j;
      x[j] = scores(product[0] + product[Tile::kRows * Tile::kScorePitch]);
      const int n = first + pair + j;
      if (edge && (n < span.begin || n >= span.end || !tour.sees(seen, n))) x[j] = kNoScore;
    }
    const float factor = softmax.raise(warp_max<16>(fmaxf(x[0], x[1]))), base = softmax.base();
    x[0] = fast_exp2(x[0] - base);
    x[1] = fast_exp2(x[1] - base);
    softmax.d += x[0] + x[1];
    *reinterpret_cast<float2*>(products + row * Tile::kScorePitch + pair) = make_float2(x[0], x[1]);
    if (pair == 0) factors[row] = factor;
    __syncthreads();

    const float low = factors[lane / 4], high = factors[lane / 4 + 8];
#pragma unroll
    for (int i = 0; i < 8; ++i) o[i][0] *= low, o[i][1] *= low, o[i][2] *= high, o[i][3] *= high;
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      uint32_t a[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = i * 16 + lane % 4 * 2 + j / 2 * 8;
        float2 weight = *reinterpret_cast<const float2*>(products + (lane / 4 + j % 2 * 8) * Tile::kScorePitch + key);
        if (p.f8) {
          weight.x *= scale[key * Tile::kGroups + warp / 2];
          weight.y *= scale[(key + 1) * Tile::kGroups + warp / 2];
        }
        a[j] = pack2<T>(weight.x, weight.y);
      }
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, shared_address(k + (i * 16 + lane % 16) * kPitch + warp * 64 + c * 16 + lane / 16 * 8));
        mma_m16n8k16<T>(o[2 * c], a, b[0], b[1]);
        mma_m16n8k16<T>(o[2 * c + 1], a, b[2], b[3]);
      }
    }
  }
  cp_async_wait<0>();

  softmax.d = warp_sum<16>(softmax.d);
  __syncthreads();
  if (pair == 0 && row < tour.rows()) {
    factors[row] = softmax.inverse(p.partial_o ? kNoScore : tour.sink(row));
    float* const lse = p.partial_o ? p.partial_lse + split * p.partial_rows + tour.index(row) : tour.lse(row);
    if (lse) *lse = softmax.lse();
  }
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = lane / 4 + half * 8;
    if (r >= tour.rows()) continue;
    const float factor = factors[r];
    if (p.partial_o) {
      float* const to = p.partial_o + (split * p.partial_rows + tour.index(r)) * p.value_dim + warp * 64 + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        to[i * 8] = o[i][2 * half] * factor;
        to[i * 8 + 1] = o[i][2 * half + 1] * factor;
      }
    } else {
      T* const to = static_cast<T*>(tour.o(r)) + warp * 64 + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        to[i * 8] = from_float<T>(o[i][2 * half] * factor);
        to[i * 8 + 1] = from_float<T>(o[i][2 * half + 1] * factor);
      }
    }
  }
}

}  // namespace culebra::CUL_DEVICE_NS

// Exact attention with an online softmax: tiles of keys are converted to f32 once and meet a tile of query rows. What a
// row sees is an interval of keys, so masks are loop bounds: keys that a row does not see are never read for it,
// whatever they hold.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/attention/mla_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = AttentionParams;

constexpr int64_t kQueryTile = 32;  // (query, head of the group) rows that share a tile of keys
constexpr int64_t kKeyTile = 32;    // begins at a multiple of itself: a row's sums do not depend on its neighbours

// One query row's running softmax.
struct Row {
  KeyRange visible;
  float max, sum;
};

struct Scratch {
  explicit Scratch(const Params& p) : pitch(padded(p.dim)), value_pitch(padded(p.value_dim)) {
    static thread_local std::vector<float> memory;
    memory.resize(static_cast<size_t>((kQueryTile + kKeyTile) * (pitch + value_pitch)));
    q = memory.data();
    k = q + kQueryTile * pitch;
    v = k + kKeyTile * pitch;
    o = v + kKeyTile * value_pitch;
  }
  int64_t pitch, value_pitch;
  float *q, *k, *v, *o;
  Row rows[kQueryTile];
};

// scores[j] = q . k_j for j in [0, n), eight keys at a time; every key's sum is made the same way.
HWY_INLINE void dot_keys(const float* q, const float* k, int64_t pitch, int64_t n, float* scores) {
  constexpr int64_t kKeys = 8;
  const F32Tag d;
  for (int64_t j = 0; j < n; j += kKeys) {
    const float* keys[kKeys];  // beyond n the last key is computed again
    HWY_UNROLL(16)
    for (int64_t c = 0; c < kKeys; ++c) keys[c] = k + std::min(j + c, n - 1) * pitch;
    F32 sum[kKeys];
    HWY_UNROLL(16)
    for (F32& s : sum) s = hn::Zero(d);
    for (int64_t i = 0; i < pitch; i += kLanes) {
      const F32 x = load(q + i);
      HWY_UNROLL(16)
      for (int64_t c = 0; c < kKeys; ++c) sum[c] = hn::MulAdd(x, load(keys[c] + i), sum[c]);
    }
    HWY_UNROLL(16)
    for (int64_t c = 0; c < kKeys; c += 4) sum_of_lanes(sum[c], sum[c + 1], sum[c + 2], sum[c + 3], scores + j + c);
  }
}

// o = rescale o + sum_j weights[j] v_j, on kWidth elements at once: enough sums in flight to hide the latency of an
// addition.
template <int64_t kWidth>
HWY_INLINE void add_values(const float* v, int64_t pitch, const float* weights, int64_t n, F32 rescale, float* o) {
  constexpr int64_t kVectors = kWidth / kLanes;
  F32 sum[kVectors];
  HWY_UNROLL(16)
  for (int64_t c = 0; c < kVectors; ++c) sum[c] = hn::Mul(rescale, load(o + c * kLanes));
  for (int64_t j = 0; j < n; ++j) {
    const F32 w = hn::Set(F32Tag(), weights[j]);
    HWY_UNROLL(16)
    for (int64_t c = 0; c < kVectors; ++c) sum[c] = hn::MulAdd(w, load(v + j * pitch + c * kLanes), sum[c]);
  }
  HWY_UNROLL(16)
  for (int64_t c = 0; c < kVectors; ++c) store_f32(sum[c], o + c * kLanes);
}

// Keys [begin, end) of the tile, all visible to this row, enter its softmax.
HWY_INLINE void update_row(const Params& p, const Scratch& s, int64_t r, Row& row, int64_t begin, int64_t end) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), n = end - begin;
  alignas(64) float scores[kKeyTile + kRowPad];
  dot_keys(s.q + r * s.pitch, s.k + begin * s.pitch, s.pitch, n, scores);
  std::fill(scores + n, scores + padded(n), -INFINITY);
  if (p.softcap > 0) {
    const F32 cap = hn::Set(d, p.softcap), inverse = hn::Set(d, 1 / p.softcap);
    for (int64_t j = 0; j < n; j += lanes)
      store_f32(hn::Mul(cap, hn::Tanh(d, hn::Mul(load(scores + j), inverse))), scores + j);
    std::fill(scores + n, scores + padded(n), -INFINITY);
  }
  F32 maxima = hn::Set(d, row.max);
  for (int64_t j = 0; j < n; j += lanes) maxima = hn::Max(maxima, load(scores + j));
  const float max = hn::GetLane(hn::MaxOfLanes(d, maxima));
  // A maximum passes over NaN: only if every score is -inf has the row still seen nothing.
  if (max == -INFINITY && std::all_of(scores, scores + n, [](float x) { return x == -INFINITY; })) return;
  F32 sum = hn::Zero(d);
  for (int64_t j = 0; j < n; j += lanes) {
    const F32 score = load(scores + j);
    const F32 weight = hn::IfThenElse(hn::IsNaN(score), score, hn::Exp(d, hn::Sub(score, hn::Set(d, max))));
    sum = hn::Add(sum, weight);
    store_f32(weight, scores + j);
  }
  const float rescale = std::exp(row.max - max);
  row.sum = row.sum * rescale + sum_of_lanes(sum);
  row.max = max;
  const float* v = s.v + begin * s.value_pitch;
  float* o = s.o + r * s.value_pitch;
  int64_t i = 0;
  for (; i + 64 <= s.value_pitch; i += 64) add_values<64>(v + i, s.value_pitch, scores, n, hn::Set(d, rescale), o + i);
  for (; i < s.value_pitch; i += kRowPad)
    add_values<kRowPad>(v + i, s.value_pitch, scores, n, hn::Set(d, rescale), o + i);
}

// A token of a u8 latent cache (mla_attention.h), its first n channels: 512 or all.
HWY_INLINE void load_latent(const uint8_t* from, int64_t n, float* to) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t c = 0; c < kLatentValueDim; c += lanes) {
    float scale;
    std::memcpy(&scale, from + kLatentScalesAt + c / kLatentScaleChannels * 4, sizeof scale);
    store_f32(hn::Mul(hn::Set(d, scale), load(reinterpret_cast<const float8_e4m3_t*>(from) + c)), to + c);
  }
  if (n <= kLatentValueDim) return;
  bfloat16_t tail[kLatentDim - kLatentValueDim];  // rows of bytes may begin at an odd address
  std::memcpy(tail, from + kLatentTailAt, sizeof tail);
  for (int64_t c = kLatentValueDim; c < n; c += lanes) store_f32(load(tail + (c - kLatentValueDim)), to + c);
}

template <class C>
void load_keys(const Params& p, int64_t b, int64_t head, int64_t begin, int64_t end, Scratch& s, int64_t tile_begin) {
  for (int64_t j = begin; j < end; ++j) {
    int64_t page = 0, offset = j;
    if (p.tokens) {
      const int64_t token = p.tokens[b * p.tokens_stride + j];
      page = token / p.page_size;
      offset = token % p.page_size;
    } else if (p.page_table) {
      page = p.page_table[b * p.page_table_stride + j / p.page_size];
      offset = j % p.page_size;
    } else {
      offset += p.cu_k[b];
    }
    auto at = [&](const Params::Rows& x) {
      return static_cast<const C*>(x.data) + page * x.batch + offset * x.row + head * x.head;
    };
    if constexpr (std::is_same_v<C, uint8_t>) {
      load_latent(at(p.k), p.dim, s.k + (j - tile_begin) * s.pitch);
      load_latent(at(p.v), p.value_dim, s.v + (j - tile_begin) * s.value_pitch);
    } else {
      load_row(at(p.k), p.dim, s.k + (j - tile_begin) * s.pitch);
      load_row(at(p.v), p.value_dim, s.v + (j - tile_begin) * s.value_pitch);
    }
  }
}

// Rows [first, first + count) of the query rows that share KV head `head` in sequence b; row r is query r / G, head r %
// G of the group.
template <class T, class C>
void run_tile(const Params& p, int64_t b, int64_t head, int64_t first, int64_t count, Scratch& s) {
  const int64_t group = p.group(), queries = p.query_count(b), keys = p.key_count(b);
  const float q_scale = p.scale * (p.k_scale ? p.k_scale[head] : 1.0f);
  auto at = [&](const Params::Rows& x, int64_t r) {
    return b * x.batch + (p.query_begin(b) + r / group) * x.row + (head * group + r % group) * x.head;
  };
  KeyRange all{keys, 0};
  for (int64_t r = 0; r < count; ++r) {
    float* q = s.q + r * s.pitch;
    load_row(static_cast<const T*>(p.q.data) + at(p.q, first + r), p.dim, q);
    scale_row(q, q_scale, p.dim);
    s.rows[r] = {p.visible((first + r) / group, queries, keys), -INFINITY, 0.0f};
    if (s.rows[r].visible.begin < s.rows[r].visible.end) {
      all.begin = std::min(all.begin, s.rows[r].visible.begin);
      all.end = std::max(all.end, s.rows[r].visible.end);
    }
  }
  std::fill(s.o, s.o + count * s.value_pitch, 0.0f);
  for (int64_t tile = all.begin / kKeyTile * kKeyTile; tile < all.end; tile += kKeyTile) {
    load_keys<C>(p, b, head, std::max(tile, all.begin), std::min(tile + kKeyTile, all.end), s, tile);
    for (int64_t r = 0; r < count; ++r) {
      Row& row = s.rows[r];
      const int64_t begin = std::max(row.visible.begin, tile), end = std::min(row.visible.end, tile + kKeyTile);
      if (begin < end) update_row(p, s, r, row, begin - tile, end - tile);
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    const Row& row = s.rows[r];
    float* o = s.o + r * s.value_pitch;
    if (row.max > -INFINITY) {
      const float sink = p.sink ? std::exp(p.sink[head * group + (first + r) % group] - row.max) : 0.0f;
      const float factor = (p.v_scale ? p.v_scale[head] : 1.0f) / (row.sum + sink);
      scale_row(o, factor, p.value_dim);
    }
    store_row(o, p.value_dim, static_cast<T*>(p.o.data) + at(p.o, first + r));
    if (p.lse.data) static_cast<float*>(p.lse.data)[at(p.lse, first + r)] = row.max + std::log(row.sum);
  }
}

// Work items: (sequence, KV head, kQueryTile query rows), those of the first sequence first.
void attention_items(const Params& p, int64_t begin, int64_t end) {
  Scratch scratch(p);
  int64_t item = 0;
  for (int64_t b = 0; b < p.sequences && item < end; ++b) {
    const int64_t rows = p.query_count(b) * p.group(), tiles = (rows + kQueryTile - 1) / kQueryTile;
    const int64_t items = tiles * p.kv_heads;
    for (int64_t i = std::max<int64_t>(begin - item, 0); i < std::min(items, end - item); ++i) {
      const int64_t head = i / tiles, first = i % tiles * kQueryTile, count = std::min(kQueryTile, rows - first);
      with_float_type(p.dtype, [&](auto type) {
        using T = decltype(type);
        if (p.cache_dtype == DType::f8e4m3) {
          run_tile<T, float8_e4m3_t>(p, b, head, first, count, scratch);
        } else if (p.cache_dtype == DType::u8) {
          run_tile<T, uint8_t>(p, b, head, first, count, scratch);
        } else {
          run_tile<T, T>(p, b, head, first, count, scratch);
        }
      });
    }
    item += items;
  }
}

int64_t attention_item_count(const Params& p) {
  int64_t items = 0;
  for (int64_t b = 0; b < p.sequences; ++b)
    items += (p.query_count(b) * p.group() + kQueryTile - 1) / kQueryTile * p.kv_heads;
  return items;
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(attention_items);
HWY_EXPORT(attention_item_count);

void attention(const AttentionParams& p, ThreadPool& pool) {
  p.require_valid();
  const int64_t items = HWY_DYNAMIC_DISPATCH(attention_item_count)(p);
  if (items == 0) return;
  int64_t pairs = 0;  // of queries and keys, at most
  for (int64_t b = 0; b < p.sequences; ++b) pairs += p.query_count(b) * p.key_count(b);
  const int64_t work_per_item = pairs * p.query_heads * (p.dim + p.value_dim) / items;
  const auto run = HWY_DYNAMIC_DISPATCH(attention_items);
  pool.parallel_for(items, 131072 / (work_per_item + 1) + 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

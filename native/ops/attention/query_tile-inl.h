// The online softmax of the cpu's attention operators: a tile of query rows meets keys and values. What a row sees is given as bounds or
// as a list, so that a key that it does not see never enters its sums, whatever it holds.
//
// Many rows meet a tile of keys by products of matrices (backends/cpu/tile_product-inl.h), which converts keys and values to f32 once for
// all rows; few rows read them where they lie (few_rows-inl.h). Which way is taken is the caller's to say (by_matrix), not a matter of how
// full a tile is: either way a row's sums do not depend on the other rows.
//
//   tile.query(r, q, scale);                  for each row
//   tile.reset(rows);
//   tile.visible(r) = {begin, end};
//   tile.meet<T>(0, rows, {begin, end}, at);  as often as there are runs of keys; at(j) gives key j's rows of k and v, which stay
//                                             until kKeys others have been asked for
//   lse = tile.finish(r, sink);               tile.output(r) is the result
#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/attention/attention.h"

#if defined(CULEBRA_OPS_ATTENTION_QUERY_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CULEBRA_OPS_ATTENTION_QUERY_TILE_INL_H_
#undef CULEBRA_OPS_ATTENTION_QUERY_TILE_INL_H_
#else
#define CULEBRA_OPS_ATTENTION_QUERY_TILE_INL_H_
#endif

#include "backends/cpu/rows-inl.h"
#include "backends/cpu/tile_product-inl.h"
#include "backends/cpu/transpose-inl.h"
#include "ops/attention/few_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// Keys begin, begin + 1, .. of the loaded tile, or those in a list.
struct KeyRun {
  int64_t begin;
  HWY_INLINE int64_t operator[](int64_t j) const { return begin + j; }
};
struct KeyList {
  const uint8_t* keys;
  HWY_INLINE int64_t operator[](int64_t j) const { return keys[j]; }
};

// scores[j] = q . k_j for the n keys of `which`, eight at a time; every key's sum is made the same way.
template <class Which>
HWY_INLINE void dot_keys(const float* q, const float* k, int64_t pitch, Which which, int64_t n, float* scores) {
  constexpr int64_t kAtOnce = 8;
  const F32Tag d;
  for (int64_t j = 0; j < n; j += kAtOnce) {
    const float* keys[kAtOnce];  // beyond n the last key is computed again
    HWY_UNROLL(16)
    for (int64_t c = 0; c < kAtOnce; ++c) keys[c] = k + which[std::min(j + c, n - 1)] * pitch;
    F32 sum[kAtOnce];
    HWY_UNROLL(16)
    for (F32& s : sum) s = hn::Zero(d);
    for (int64_t i = 0; i < pitch; i += kLanes) {
      const F32 x = load(q + i);
      HWY_UNROLL(16)
      for (int64_t c = 0; c < kAtOnce; ++c) sum[c] = hn::MulAdd(x, load(keys[c] + i), sum[c]);
    }
    HWY_UNROLL(16)
    for (int64_t c = 0; c < kAtOnce; c += 4) sum_of_lanes(sum[c], sum[c + 1], sum[c + 2], sum[c + 3], scores + j + c);
  }
}

// o = rescale o + sum_j weights[j] v_j, on kWidth elements at once: enough sums in flight to hide the latency of an
// addition.
template <int64_t kWidth, class Which>
HWY_INLINE void add_values(const float* v, int64_t pitch, Which which, const float* weights, int64_t n, F32 rescale,
                           float* o) {
  constexpr int64_t kVectors = kWidth / kLanes;
  F32 sum[kVectors];
  HWY_UNROLL(16)
  for (int64_t c = 0; c < kVectors; ++c) sum[c] = hn::Mul(rescale, load(o + c * kLanes));
  for (int64_t j = 0; j < n; ++j) {
    const F32 w = hn::Set(F32Tag(), weights[j]);
    const float* row = v + which[j] * pitch;
    HWY_UNROLL(16)
    for (int64_t c = 0; c < kVectors; ++c) sum[c] = hn::MulAdd(w, load(row + c * kLanes), sum[c]);
  }
  HWY_UNROLL(16)
  for (int64_t c = 0; c < kVectors; ++c) store_f32(sum[c], o + c * kLanes);
}

class QueryTile {
 public:
  static constexpr int64_t kRows = 32;  // of most tiles: (query, head of the group) rows that share a tile of keys
  static constexpr int64_t kKeys = 32;  // begins at a multiple of itself: a row's sums do not depend on its neighbours
  static constexpr int64_t kMatrixRows = 8;  // rows that meet the same keys, from which on products of matrices pay

  // `memory` is kept by the caller from tile to tile.
  QueryTile(std::vector<float>& memory, int64_t dim, int64_t value_dim, int64_t rows = kRows, float softcap = 0)
      : dim_(dim), value_dim_(value_dim), pitch_(padded(dim)), value_pitch_(padded(value_dim)), softcap_(softcap),
        rows_(static_cast<size_t>(rows)) {
    memory.resize(static_cast<size_t>((rows + kKeys) * (pitch_ + value_pitch_) + kKeys * pitch_ + rows * (kKeys + 1)));
    q_ = memory.data();
    k_ = q_ + rows * pitch_;
    v_ = k_ + kKeys * pitch_;
    o_ = v_ + kKeys * value_pitch_;
    turned_ = o_ + rows * value_pitch_;
    scores_ = turned_ + kKeys * pitch_;
    rescale_ = scores_ + rows * kKeys;
  }

  // Whether rows meet keys by products of matrices: for who has kMatrixRows rows and more for the same keys.
  void by_matrix(bool on) { matrix_ = on; }

  // Row r is factor * q.
  template <class T>
  void query(int64_t r, const T* q, float factor) {
    load_row(q, dim_, q_ + r * pitch_);
    scale_row(q_ + r * pitch_, factor, dim_);
  }
  // The first `count` rows have seen nothing.
  void reset(int64_t count) {
    for (int64_t r = 0; r < count; ++r) row(r) = {{0, 0}, -INFINITY, 0.0f};
    std::fill(o_, o_ + count * value_pitch_, 0.0f);
  }
  KeyRange& visible(int64_t r) { return row(r).visible; }

  // Rows [first, first + count) meet those of `keys` that each of them sees. at(j): the rows of key and value j, of type C.
  template <class C, class At>
  void meet(int64_t first, int64_t count, KeyRange keys, At&& at) {
    meet<C>(first, count, keys, at, nullptr);
  }
  // ahead(j): rows of a key and a value that will be asked for soon, to be fetched meanwhile.
  template <class C, class At, class Ahead>
  void meet(int64_t first, int64_t count, KeyRange keys, At&& at, Ahead&& ahead) {
    constexpr bool kAhead = !std::is_same_v<std::decay_t<Ahead>, std::nullptr_t>;
    for (int64_t tile = keys.begin / kKeys * kKeys; tile < keys.end; tile += kKeys) {
      const int64_t begin = std::max(tile, keys.begin), end = std::min(tile + kKeys, keys.end);
      const C *k[kKeys], *v[kKeys], *next_k[kKeys], *next_v[kKeys];
      for (int64_t j = begin; j < end; ++j) {
        std::tie(k[j - begin], v[j - begin]) = at(j);
        if constexpr (kAhead) {
          if (!matrix_) std::tie(next_k[j - begin], next_v[j - begin]) = ahead(j);
        }
        if (matrix_ || !in_place<C>()) load_key(j - tile, k[j - begin], v[j - begin]);
      }
      if (matrix_) {
        meet_matrix(first, count, tile, begin, end);
        continue;
      }
      if constexpr (kInPlace<C>) {
        const bool nan = kUnit<C> != 1 && in_place<C>() && has_nan(k, v, end - begin);
        if (in_place<C>() && !nan) {
          meet_few(first, count, begin, end, k, v, kAhead ? NextRows<C>{next_k, next_v} : NextRows<C>{}, dim_, value_dim_);
          continue;
        }
        if (nan)
          for (int64_t j = begin; j < end; ++j) load_key(j - tile, k[j - begin], v[j - begin]);
      }
      const float *loaded_k[kKeys], *loaded_v[kKeys];
      for (int64_t j = begin; j < end; ++j) {
        loaded_k[j - begin] = k_ + (j - tile) * pitch_;
        loaded_v[j - begin] = v_ + (j - tile) * value_pitch_;
      }
      meet_few(first, count, begin, end, loaded_k, loaded_v, NextRows<float>{}, pitch_, value_pitch_);
    }
  }

  // The keys one by one, for who gathers them: slot < kKeys.
  template <class C>
  HWY_INLINE void load_key(int64_t slot, const C* k, const C* v) {
    load_row(k, dim_, k_ + slot * pitch_);
    if (v) load_row(v, value_dim_, v_ + slot * value_pitch_);
  }
  // Row r sees the n keys in the listed slots, n >= 1.
  void meet_listed(int64_t r, const uint8_t* slots, int64_t n) { update(r, KeyList{slots}, n); }
  // scores[j] = the product of row r and the key in slot j < n; scores has room for n rounded up to 8.
  void scores(int64_t r, int64_t n, float* scores) const {
    dot_keys(q_ + r * pitch_, k_, pitch_, KeyRun{0}, n, scores);
  }

  // output(r) becomes factor times the mean of the values, `sink` counting as a score without a value; returns lse,
  // without the sink.
  float finish(int64_t r, float sink = -INFINITY, float factor = 1) {
    const Row& x = row(r);
    if (x.max > -INFINITY)
      scale_row(output(r), factor / (x.sum + (sink > -INFINITY ? std::exp(sink - x.max) : 0.0f)), value_dim_);
    return x.max + std::log(x.sum);
  }
  // What the keys so far amount to.
  float lse(int64_t r) const {
    const Row& x = rows_[static_cast<size_t>(r)];
    return x.max + std::log(x.sum);
  }
  float* output(int64_t r) { return o_ + r * value_pitch_; }

  // What row r has seen, [state_size()] numbers, for another tile's row to see as well.
  int64_t state_size() const { return kRowPad + value_pitch_; }
  void save(int64_t r, float* state) const {
    const Row& x = rows_[static_cast<size_t>(r)];
    state[0] = x.max;
    state[1] = x.sum;
    std::copy(o_ + r * value_pitch_, o_ + (r + 1) * value_pitch_, state + kRowPad);
  }
  void add(int64_t r, const float* state) {
    Row& x = row(r);
    const float max = std::max(x.max, state[0]);
    // A row that has seen nothing, or but NaNs, has no maximum: its sums count as they are.
    const auto factor = [max](float of) { return of == max ? 1.0f : std::exp(of - max); };
    const float mine = factor(x.max), other = factor(state[0]);
    x.sum = x.sum * mine + state[1] * other;
    x.max = max;
    const F32 a = hn::Set(F32Tag(), mine), b = hn::Set(F32Tag(), other);
    for (int64_t i = 0; i < value_pitch_; i += kLanes)
      store_f32(hn::MulAdd(load(state + kRowPad + i), b, hn::Mul(load(output(r) + i), a)), output(r) + i);
  }

 private:
  // One query row's running softmax.
  struct Row {
    KeyRange visible;
    float max, sum;
  };
  Row& row(int64_t r) { return rows_[static_cast<size_t>(r)]; }

  // Scores of n keys become their weights; false if the row has still seen nothing. Sums so far count `rescale` times.
  HWY_INLINE bool weigh(Row& x, float* scores, int64_t n, float& rescale) {
    const F32Tag d;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
    std::fill(scores + n, scores + padded(n), -INFINITY);
    if (softcap_ > 0) {
      const F32 cap = hn::Set(d, softcap_), inverse = hn::Set(d, 1 / softcap_);
      for (int64_t j = 0; j < n; j += lanes)
        store_f32(hn::Mul(cap, hn::Tanh(d, hn::Mul(load(scores + j), inverse))), scores + j);
      std::fill(scores + n, scores + padded(n), -INFINITY);
    }
    F32 maxima = hn::Set(d, x.max);
    for (int64_t j = 0; j < n; j += lanes) maxima = hn::Max(maxima, load(scores + j));
    const float max = hn::GetLane(hn::MaxOfLanes(d, maxima));
    // A maximum passes over NaN: only if every score is -inf has the row still seen nothing.
    if (max == -INFINITY && std::all_of(scores, scores + n, [](float s) { return s == -INFINITY; })) return false;
    F32 sum = hn::Zero(d);
    for (int64_t j = 0; j < n; j += lanes) {
      const F32 score = load(scores + j);
      const F32 weight = hn::IfThenElse(hn::IsNaN(score), score, hn::Exp(d, hn::Sub(score, hn::Set(d, max))));
      sum = hn::Add(sum, weight);
      store_f32(weight, scores + j);
    }
    rescale = x.max == max ? 1.0f : std::exp(x.max - max);
    x.sum = x.sum * rescale + sum_of_lanes(sum);
    x.max = max;
    return true;
  }

  // Types that few rows can read where they lie, whole vectors at a time.
  template <class C>
  static constexpr bool kInPlace = std::is_same_v<C, float> || std::is_same_v<C, half_t> || std::is_same_v<C, bfloat16_t> || std::is_same_v<C, float8_e4m3_t>;
  template <class C>
  bool in_place() const {
    return kInPlace<C> && dim_ == pitch_ && value_dim_ == value_pitch_;
  }
  template <class C>
  bool has_nan(const C* const* k, const C* const* v, int64_t n) const {
    if constexpr (kUnit<C> == 1) return false;
    else return holds_nan(k, n, dim_) || holds_nan(v, n, value_dim_);
  }

  // Rows [first, first + count) and the keys [begin, end), whose rows are k and v: neighbouring rows that see the same keys together.
  template <class C>
  void meet_few(int64_t first, int64_t count, int64_t begin, int64_t end, const C* const* k, const C* const* v, NextRows<C> next, int64_t dim,
                int64_t value_dim) {
    const auto seen = [&](int64_t r) { return KeyRange{std::max(row(r).visible.begin, begin), std::min(row(r).visible.end, end)}; };
    for (int64_t r = first, rows; r < first + count; r += rows) {
      const KeyRange keys = seen(r);
      for (rows = 1; rows < kFewRows && r + rows < first + count; ++rows)
        if (const KeyRange x = seen(r + rows); x.begin != keys.begin || x.end != keys.end) break;
      if (keys.begin >= keys.end) continue;
      if (rows == 3) rows = 2;
      const int64_t at = keys.begin - begin, n = keys.end - keys.begin;
      const NextRows<C> soon = next.k ? NextRows<C>{next.k + at, next.v + at} : next;
      next = {};  // once is enough
      if (rows == 1) attend<C, 1>(r, k + at, v + at, soon, n, dim, value_dim);
      else if (rows == 2) attend<C, 2>(r, k + at, v + at, soon, n, dim, value_dim);
      else if constexpr (kFewRows == 4) attend<C, 4>(r, k + at, v + at, soon, n, dim, value_dim);
    }
  }
  // n keys, all visible to the rows [r, r + R), enter their softmax.
  template <class C, int64_t R>
  void attend(int64_t r, const C* const* k, const C* const* v, const NextRows<C>& next, int64_t n, int64_t dim, int64_t value_dim) {
    constexpr int64_t kPitch = kKeys + kRowPad;
    alignas(64) float scores[R * kPitch];
    float rescale[R];
    bool seen[R], all = true;
    score_keys<C, R>(q_ + r * pitch_, pitch_, k, next, n, dim, value_dim, scores, kPitch);
    for (int64_t i = 0; i < R; ++i) {
      float* const s = scores + i * kPitch;
      if (kUnit<C> != 1) scale_row(s, kUnit<C>, n);
      all &= seen[i] = weigh(row(r + i), s, n, rescale[i]);
      if (kUnit<C> != 1) scale_row(s, kUnit<C>, n);
    }
    if (all) return add_rows<C, R>(v, n, value_dim, scores, kPitch, rescale, output(r), value_pitch_);
    for (int64_t i = 0; i < R; ++i)
      if (seen[i]) add_rows<C, 1>(v, n, value_dim, scores + i * kPitch, kPitch, rescale + i, output(r + i), value_pitch_);
  }

  // n keys of the loaded tile, all visible to this row, enter its softmax.
  template <class Which>
  HWY_INLINE void update(int64_t r, Which which, int64_t n) {
    const F32Tag d;
    alignas(64) float scores[kKeys + kRowPad];
    dot_keys(q_ + r * pitch_, k_, pitch_, which, n, scores);
    float rescale;
    if (!weigh(row(r), scores, n, rescale)) return;
    float* o = output(r);
    int64_t i = 0;
    for (; i + 64 <= value_pitch_; i += 64)
      add_values<64>(v_ + i, value_pitch_, which, scores, n, hn::Set(d, rescale), o + i);
    for (; i < value_pitch_; i += kRowPad)
      add_values<kRowPad>(v_ + i, value_pitch_, which, scores, n, hn::Set(d, rescale), o + i);
  }

  // Rows [first, first + count) meet keys [begin, end), which are loaded in slots from begin - tile on.
  void meet_matrix(int64_t first, int64_t count, int64_t tile, int64_t begin, int64_t end) {
    // Scores of all rows and whole vectors of slots; those of keys that a row does not see are passed over below.
    const int64_t low = (begin - tile) / kRowPad * kRowPad, high = padded(end - tile);
    for (int64_t slot = low; slot < high; slot += kLanes)
      for (int64_t i = 0; i < pitch_; i += kLanes) transpose_block(k_ + slot * pitch_ + i, pitch_, turned_ + i * kKeys + slot, kKeys);
    multiply_tile(q_ + first * pitch_, pitch_, count, turned_ + low, kKeys, dim_, high - low, nullptr, scores_ + first * kKeys + low, kKeys);
    // Neighbouring rows that see the same keys [from, to) add values together.
    int64_t together = first, from = 0, to = 0;
    const auto add_until = [&](int64_t r) HWY_ATTR {
      if (from < to)
        multiply_tile(scores_ + together * kKeys + from, kKeys, r - together, v_ + from * value_pitch_, value_pitch_, to - from, value_pitch_,
                      rescale_ + together, output(together), value_pitch_);
    };
    for (int64_t r = first; r < first + count; ++r) {
      int64_t x = std::max(row(r).visible.begin, begin) - tile, y = std::min(row(r).visible.end, end) - tile;
      if (x >= y || !weigh_part(r, x, y)) x = y = 0;
      if (x == from && y == to) continue;
      add_until(r);
      together = r, from = x, to = y;
    }
    add_until(first + count);
  }
  // Weights of row r's slots [x, y); its factor for what it has so far.
  bool weigh_part(int64_t r, int64_t x, int64_t y) {
    float* const scores = scores_ + r * kKeys;
    if (x == 0) return weigh(row(r), scores, y, rescale_[r]);
    alignas(64) float seen[kKeys];  // whole vectors from x on would reach into the next row
    std::copy(scores + x, scores + y, seen);
    if (!weigh(row(r), seen, y - x, rescale_[r])) return false;
    std::copy(seen, seen + (y - x), scores + x);
    return true;
  }

  int64_t dim_, value_dim_, pitch_, value_pitch_;
  float softcap_;
  bool matrix_ = false;
  std::vector<Row> rows_;
  float *q_, *k_, *v_, *o_;
  float *turned_, *scores_, *rescale_;  // for products of matrices: keys [pitch, kKeys], scores and weights [rows, kKeys]
};

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif

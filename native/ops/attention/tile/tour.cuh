// What the loops of this folder have in common: the tensors, and the interface of a tour.
//
// A tour is what one block works on: a tile of query rows and the keys that they visit, in the order of the visit. The loops
// (half_tile.cuh: query rows on the M side of the tensor cores; few_rows.cuh: keys on the M side, for up to 16 rows; f32_tile.cuh: FMAs) know
// nothing of masks, pages, blocks or boxes; a tour knows nothing of shared memory, fragments or softmax. Whoever adds a form of
// attention writes a tour and the function that makes block i's:
//
//   struct MyTour {
//     // ---- rows. Row r of the tile, 0 <= r < rows(); a row is one query token and one query head, in any arrangement: rows of
//     // one tile share the keys they load, so they share a KV head, and for small tiles the heads of a group belong together.
//     int rows() const;                 // up to the loop's kRows; 0: the block has nothing to do
//     const void* q(int r) const;       // where the row's D elements lie
//     void* o(int r) const;             // where its Dv results go
//     float* lse(int r) const;          // or null
//     float sink(int r) const;          // logit of the sink, kNoScore where there is none
//     int64_t index(int r) const;       // the row's number among all rows of the call, for the partial results of a split
//
//     // ---- keys. They are numbered as the tour visits them: key n, begin() <= n < end(). Loops go in steps of kKeys from begin()
//     // rounded down to a multiple, so give n that keeps neighbours in memory together and lets whole steps be skipped: n is the
//     // key's position where keys are contiguous, and (entry of the list) * block + offset where a list of blocks is visited.
//     int begin() const, end() const;   // begin() >= end(): rows see nothing; o = 0, lse = -inf is written all the same
//     KeyPlace place(int n) const;      // where key n's D and value's Dv elements lie; {null, null}: nowhere (a padding entry, page -1): the
//                                       // row becomes zeros in shared memory and sees() must be false for it. Called by one thread per
//                                       // key and step, one step ahead: it may read index tensors.
//
//     // ---- masks. Keys outside begin() .. end() are masked by the loop.
//     bool edge(int first, int last) const;  // may some row of the tile not see some key of first .. last - 1? When in doubt true; the same
//                                            // answer in all threads. False: sees() is not asked for these keys.
//     struct Row { ... };               // what sees() needs of a row, in a register or two
//     Row row(int r) const;             // also for r >= rows(): any state, the results of such rows are not stored
//     bool sees(const Row&, int n) const;    // begin() <= n < end()
//
//     // ---- optional: keys and values are never e4m3 (Problem::f8), which need not be compiled then
//     static constexpr bool kPlainKeys = true;
//
//     // ---- optional: factors of every product q . k, and of every result (scales of an f8 cache)
//     float key_scale() const; float value_scale() const;
//
//     // ---- optional: keys that are not rows of elements in memory (compressed caches). Eight elements of key n from channel c on, c a
//     // multiple of 8 below D (values: below Dv), zeros beyond it and where place() is null. Called instead of copying. place() is
//     // still asked and may hold whatever the two want to know.
//     template <class T> Eight<T> k_chunk(const KeyPlace&, int n, int c) const;
//     template <class T> Eight<T> v_chunk(const KeyPlace&, int n, int c) const;
//   };
//
// A tour is a small trivially copyable struct in registers, the same in all threads of the block. It is made from the kernel's parameters by
//
//   struct MyTours {                    // parameters, by value
//     MyTour tour(int64_t tile) const;  // every thread of the block calls; may read index tensors, never by a -1
//   };
//
// and launched with launch_half, launch_few_rows or launch_f32, which split the keys where Problem says so. What every row of a tile
// cannot see should lie outside begin() .. end() or not be numbered at all: it is then never read, whatever it holds. A key that one row of a tile
// sees enters the products of the others with weight 0: an infinity or NaN there reaches them.
#pragma once
#include "device/launch.h"
#include "device/vector.h"
#include "ops/attention/tile/softmax.cuh"

namespace culebra::CUL_DEVICE_NS {

struct KeyPlace {
  const void* k;
  const void* v;
};

// Eight elements: of a half type they move as one.
struct EightFloats {
  float values[8] = {};
  CUL_DEVICE_FN float& operator[](int i) { return values[i]; }
  CUL_DEVICE_FN const float& operator[](int i) const { return values[i]; }
};
template <class T>
using Eight = std::conditional_t<sizeof(T) == 2, Vector<T, sizeof(T) == 2 ? 8 : 1>, EightFloats>;

// What a call has once, whatever its tours are.
struct Problem {
  int32_t dim, value_dim;      // D, Dv: up to 256
  float scale, softcap;
  int32_t aligned;             // every row of q, k, v and o starts at a multiple of 16 bytes, and so do D and Dv elements end
  int32_t f8;                  // keys and values are e4m3, whatever q is
  const void* anywhere;        // readable, 16-byte aligned: the source of copies that only write zeros
  // Splits of the keys (split_plan.h). partial_o null: one split, results are written at once.
  int32_t splits, split_keys;  // split s has keys [s split_keys, (s + 1) split_keys); 0: each tour is divided evenly
  float* partial_o;            // [splits, rows, value_dim], divided by d, without the sink; not written where the lse is -inf
  float* partial_lse;          // [splits, rows], natural
  int64_t partial_rows;
};

template <class Tour>
CUL_DEVICE_FN Scores scores_of(const Problem& p, const Tour& tour) {
  if constexpr (requires { tour.key_scale(); })
    return Scores(p.scale * tour.key_scale(), p.softcap);
  else
    return Scores(p.scale, p.softcap);
}
template <class Tour>
CUL_DEVICE_FN float value_scale_of(const Tour& tour) {
  if constexpr (requires { tour.value_scale(); })
    return tour.value_scale();
  else
    return 1;
}

// The keys of one split of a tour.
struct KeySpan {
  int begin, end;
};
template <class Tour>
CUL_DEVICE_FN KeySpan key_span(const Problem& p, const Tour& tour, int split) {
  if (p.splits == 1) return {tour.begin(), tour.end()};
  constexpr int64_t kUnit = 64;  // loops' steps divide it
  const int64_t begin = tour.begin(), end = tour.end();
  const int64_t origin = p.split_keys ? 0 : begin / kUnit * kUnit;
  const int64_t size = p.split_keys ? p.split_keys : max((end - origin + p.splits * kUnit - 1) / (p.splits * kUnit), int64_t{1}) * kUnit;
  const int64_t first = origin + split * size;
  return {static_cast<int>(min(max(begin, first), end)), static_cast<int>(max(min(end, first + size), int64_t{0}))};
}

// Sequence b of a packed batch has tiles [cu[b] factor / rows + b, cu[b + 1] factor / rows + b + 1) of a numbering that needs no table: at
// most one of a sequence's is empty. cu [sequences + 1] counts tokens, of which each makes `factor` rows; tiles have `rows`.
struct SequenceTile {
  int sequence;  // -1: no tile
  int tile;      // of the sequence
};
CUL_DEVICE_FN int64_t first_tile(const int32_t* cu, int sequence, int factor, int rows) {
  return int64_t{cu[sequence]} * factor / rows + sequence;
}
CUL_DEVICE_FN SequenceTile find_sequence(const int32_t* cu, int sequences, int factor, int rows, int64_t slot) {
  int low = 0, high = sequences;  // first_tile(low) <= slot < first_tile(high), as far as high exists
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (first_tile(cu, middle, factor, rows) <= slot)
      low = middle;
    else
      high = middle;
  }
  const int64_t tile = slot - first_tile(cu, low, factor, rows);
  const int64_t count = (int64_t{cu[low + 1]} - cu[low]) * factor;
  if (sequences == 0 || tile * rows >= count) return {-1, 0};
  return {low, static_cast<int>(tile)};
}
// How many slots that numbering has, for tokens rows of a tensor.
inline int64_t sequence_tiles(int64_t tokens, int64_t sequences, int64_t factor, int64_t rows) {
  return sequences ? tokens * factor / rows + sequences : 0;
}

}  // namespace culebra::CUL_DEVICE_NS

// What a block of hopper_attention works on: two or one warpgroups' rows, and the keys that they visit. Keys are numbered as in
// tile/tour.cuh, so that what a row sees is an interval of numbers; steps go from the last to the first. Whoever adds a form of attention
// writes a tour and what makes block i's:
//
//   struct MyTour {
//     // ---- rows: row r is warpgroup r / 64's
//     bool nothing() const;           // the block has no rows: it returns at once
//     HopperRows rows(int g) const;   // of warpgroup g
//
//     // ---- keys
//     int kv_head() const;
//     IntervalRows::Row hull() const;                  // what some row sees; other keys may hold anything
//     IntervalRows::Row interval(int r) const;         // what row r sees; nothing if it is not there
//     IntervalRows::Row common(int r) const;           // what all rows of the warpgroup see whose first row is r
//     static constexpr bool kOneBox;                   // the keys of a step lie behind one another: one box of the copy engine
//     int box() const;                                 // otherwise: keys of a box; a step is 1 to 32 of them
//     int key_row(int n) const;   // of the tensors k and v, where the box with key n as its first begins; outside them: zeros arrive.
//                                 // Called by a lane of the producer for each box, one step ahead: it may read index tensors.
//   };
//   struct MyTours {  // parameters, by value
//     template <int kGroups> MyTour tour(int64_t index) const;  // every thread of the block calls
//   };
#pragma once
#include "ops/attention/tile/dense_tour.cuh"

namespace culebra::CUL_DEVICE_NS {

inline constexpr int kHopperRows = 64;  // of a warpgroup

// Consecutive tokens of one query head. count 0: they are computed all the same, and not stored.
struct HopperRows {
  int head, token, count;  // token: row of the tensors q, o and lse; q's may lie outside, and are zeros then
};

// Rows of one head of a packed sequence, which see intervals of its keys.
struct HopperDenseTour {
  static constexpr bool kOneBox = true;
  const IntervalRows& all;  // a kernel's parameter
  int query_head, group, first_query, count, queries, keys;
  int q0, k0;  // of the sequence

  CUL_DEVICE_FN bool nothing() const { return query_head < 0; }
  CUL_DEVICE_FN HopperRows rows(int g) const {
    return {query_head, q0 + first_query + g * kHopperRows, min(max(count - g * kHopperRows, 0), kHopperRows)};
  }
  CUL_DEVICE_FN int kv_head() const { return query_head / group; }
  CUL_DEVICE_FN IntervalRows::Row of_query(int q) const { return all.interval(first_query + q, queries, keys); }
  CUL_DEVICE_FN IntervalRows::Row hull() const { return {of_query(0).begin, of_query(count - 1).end}; }
  CUL_DEVICE_FN IntervalRows::Row interval(int r) const { return r < count ? of_query(r) : IntervalRows::Row{0, 0}; }
  CUL_DEVICE_FN IntervalRows::Row common(int r) const { return {of_query(min(r + kHopperRows, count) - 1).begin, of_query(min(r, count - 1)).end}; }
  CUL_DEVICE_FN int box() const { return 0; }
  CUL_DEVICE_FN int key_row(int n) const { return k0 + n; }
};

struct HopperDenseTours {
  IntervalRows rows;  // group 1: a row is a query, its head the block's
  const int32_t* cu_q;
  const int32_t* cu_k;
  int32_t sequences, query_heads, group;
  int32_t section;  // query heads that go through all tiles before the next ones
  int64_t slots;    // tiles of a head

  template <int kGroups>
  CUL_DEVICE_FN HopperDenseTour tour(int64_t index) const {
    constexpr int kRows = kGroups * kHopperRows;
    const int64_t part = index / (slots * section), within = index - part * slots * section;
    const int64_t first_head = part * section, heads = min(int64_t{section}, query_heads - first_head);
    // The last tiles come first: under a causal mask they are the longest.
    const SequenceTile at = find_sequence(cu_q, sequences, 1, kRows, slots - 1 - within / heads);
    if (at.sequence < 0) return {rows, -1, 1, 0, 0, 0, 0, 0, 0};
    const int q0 = cu_q[at.sequence], k0 = cu_k[at.sequence];
    const int queries = cu_q[at.sequence + 1] - q0, first = at.tile * kRows;
    return {rows, static_cast<int>(first_head + within % heads), group, first, min(kRows, queries - first), queries,
            cu_k[at.sequence + 1] - k0, q0, k0};
  }
};

}  // namespace culebra::CUL_DEVICE_NS

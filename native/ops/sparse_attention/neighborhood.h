// Which keys a query of neighborhood attention sees on one axis, and how much work that is in tiles: pure functions, for
// checks, kernels and the command line alike.
#pragma once
#include <cstdint>

#include "device/numeric.h"

namespace culebra {

inline constexpr int kMaxAxes = 3;

// Coordinates [begin, end) of an axis.
struct AxisRange {
  int32_t begin = 0, end = 0;
};

struct NeighborhoodAxis {
  int32_t length = 1;  // of the axis, in tokens
  int32_t window = 1, stride = 1, dilation = 1;
  bool causal = false;

  // Tokens of one residue modulo the dilation form a group, an axis of their own with coordinates token / dilation.
  CUL_NUMERIC int32_t group_length(int32_t group) const {
    return length / dilation + (group < length % dilation ? 1 : 0);
  }
  // The keys that the query at coordinate i of a group with n tokens sees, n >= window.
  CUL_NUMERIC AxisRange seen(int32_t i, int32_t n) const {
    if (causal) {
      const int32_t last = i / stride * stride + stride - 1, leader = last < n ? last : n - 1;
      const int32_t begin = leader - window + 1;
      return {begin > 0 ? begin : 0, i + 1};
    }
    const int32_t middle = i / stride * stride + stride / 2, leader = middle < n ? middle : n - 1;
    int32_t begin = leader - window / 2;
    begin = begin > n - window ? n - window : begin;
    begin = begin > 0 ? begin : 0;
    return {begin, begin + window};
  }
  // What the queries [first, last] of a group see together: both bounds of `seen` never fall along the axis.
  CUL_NUMERIC AxisRange seen_by(int32_t first, int32_t last, int32_t n) const {
    return {seen(first, n).begin, seen(last, n).end};
  }
};

// How many tokens of each axis make a tile of at most `tokens` queries: the box whose queries together see the fewest keys per
// query, counted in steps of `step` keys.
struct BoxExtent {
  int32_t axis[kMaxAxes];
};
BoxExtent choose_box(const NeighborhoodAxis* axes, int64_t tokens, int64_t step);

// Tiles of keys that tiles of queries visit, of all pairs of tiles: dense attention's work over this is the bound of the
// speed-up that skipping tiles can give.
struct TileCount {
  double visited = 0, all = 0;
  double bound() const { return visited > 0 ? all / visited : 1; }
};
TileCount count_tiles(const NeighborhoodAxis* axes, int count, const int32_t* query_tile, const int32_t* key_tile);

}  // namespace culebra

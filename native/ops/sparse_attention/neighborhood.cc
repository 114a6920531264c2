#include "ops/sparse_attention/neighborhood.h"

#include <algorithm>

namespace culebra {

namespace {

// Keys that `extent` neighbouring queries of a long axis see together, if their box begins with a stride.
int64_t hull(const NeighborhoodAxis& axis, int64_t extent) {
  const int64_t leaders = (extent + axis.stride - 1) / axis.stride;
  return std::min<int64_t>(axis.window + (leaders - 1) * axis.stride, axis.group_length(0));
}

}  // namespace

BoxExtent choose_box(const NeighborhoodAxis* axes, int64_t tokens, int64_t step) {
  BoxExtent best{{1, 1, 1}};
  double least = -1;
  for (int64_t x = 1; x <= tokens; x *= 2)
    for (int64_t y = 1; x * y <= tokens; y *= 2)
      for (int64_t z = 1; x * y * z <= tokens; z *= 2) {
        const int64_t extents[kMaxAxes] = {x, y, z};
        double boxes = 1;
        int64_t keys = 1;
        for (int a = 0; a < kMaxAxes; ++a) {
          const int64_t n = std::max<int32_t>(axes[a].group_length(0), 1);
          boxes *= static_cast<double>((n + extents[a] - 1) / extents[a]);
          keys *= hull(axes[a], std::min(extents[a], n));
        }
        const double work = boxes * static_cast<double>((keys + step - 1) / step);
        // Of equal ones the longest on the last axis, whose keys lie together.
        if (least < 0 || work < least || (work == least && z > best.axis[2])) {
          least = work;
          best = {{static_cast<int32_t>(x), static_cast<int32_t>(y), static_cast<int32_t>(z)}};
        }
      }
  return best;
}

// Axes and dilation groups are independent: visited pairs of tiles are a product over axes of the sums over their groups.
TileCount count_tiles(const NeighborhoodAxis* axes, int count, const int32_t* query_tile, const int32_t* key_tile) {
  TileCount product{1, 1};
  for (int a = 0; a < count; ++a) {
    const NeighborhoodAxis& axis = axes[a];
    double visited = 0, query_tiles = 0, key_tiles = 0;
    for (int32_t group = 0; group < axis.dilation; ++group) {
      const int32_t n = axis.group_length(group);
      if (n == 0) continue;
      for (int32_t first = 0; first < n; first += query_tile[a]) {
        const int32_t last = first + query_tile[a] < n ? first + query_tile[a] - 1 : n - 1;
        const AxisRange seen = axis.seen_by(first, last, n);
        visited += (seen.end + key_tile[a] - 1) / key_tile[a] - seen.begin / key_tile[a];
      }
      query_tiles += (n + query_tile[a] - 1) / query_tile[a];
      key_tiles += (n + key_tile[a] - 1) / key_tile[a];
    }
    product.visited *= visited;
    product.all *= query_tiles * key_tiles;
  }
  return product;
}

}  // namespace culebra

#include "ops/sparse_attention/neighborhood.h"

namespace culebra {

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

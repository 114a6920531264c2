#include "ops/moe/moe_combine.h"

#include <cmath>

#include "device/validate.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Computes: y[t] = sum_j weights[t,j] rows[inverse[t k + j]]; entries outside of the rows are skipped, -2 is NaN if asked.
// Shapes:   rows [N,D], inverse [T k], weights [T,k], y [T,D].
// Layouts:  inner stride 1; 16-byte accesses where every row is aligned.
// Tiles:    256 threads, each 16 bytes of one token a step.
// Shared:   none.
// Order:    j ascending.
// Numerics: f32 FMAs, one rounding to y.
// Needs:    sm_80. Limit: (1 + k) T D elements moved.
// Source:   the definition.
template <class T>
__global__ void __launch_bounds__(glue::kTileThreads) combine_rows(MoeCombineParams p, int64_t units) {
  constexpr int kSize = glue::Pack<T>::kSize;
  glue::for_tiles(p.tokens, units, [&](int64_t token, int64_t unit) {
    const int64_t first = unit * kSize;
    const int count = p.width - first < kSize ? static_cast<int>(p.width - first) : kSize;
    glue::Pack<T> sum{};
    bool no_room = false;
#pragma unroll 4
    for (int64_t j = 0; j < p.k; ++j) {
      const int64_t row = p.inverse[token * p.k + j];
      if (row == kNoRoom && p.nan_without_room) no_room = true;
      if (row < 0 || row >= p.row_count) continue;
      const float weight = p.weights[token * p.weights_stride + j];
      const glue::Pack<T> values = glue::load_pack(static_cast<const T*>(p.rows) + row * p.rows_stride + first, count, p.aligned);
#pragma unroll
      for (int i = 0; i < kSize; ++i) sum.v[i] = fmaf(weight, values.v[i], sum.v[i]);
    }
    if (no_room) {
#pragma unroll
      for (int i = 0; i < kSize; ++i) sum.v[i] = NAN;
    }
    glue::store_pack(static_cast<T*>(p.y) + token * p.y_stride + first, sum, count, p.aligned);
  });
}

}  // namespace

void moe_combine(const MoeCombineParams& p, NativeStream stream) {
  if (p.validate) validate("moe_combine", p.indices(), stream);
  if (p.tokens == 0 || p.width == 0) return;
  with_float(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int64_t kSize = glue::Pack<T>::kSize;
    const int64_t units = (p.width + kSize - 1) / kSize;
    const glue::TileShape tiles = glue::tile_shape(p.tokens, units);
    launch(combine_rows<T>, tiles.grid, tiles.block, 0, stream, p, units);
  });
}

}  // namespace culebra::CUL_DEVICE_NS

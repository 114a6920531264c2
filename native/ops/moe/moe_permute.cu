#include "ops/moe/moe_permute.h"

#include "device/validate.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Computes: rows[inverse[t k + j]] = x[t]; entries outside of the rows are skipped.
// Shapes:   x [T,D], inverse [T k], rows [T k, D].
// Layouts:  inner stride 1; E is a 16-byte word where every row is aligned and a multiple of it, else one element.
// Tiles:    256 threads, each one E of one token a step: read once, written k times.
// Shared:   none.
// Order:    none.
// Numerics: bit for bit.
// Needs:    sm_80. Limit: (1 + k) T D elements moved.
// Source:   the definition.
template <class E>
__global__ void __launch_bounds__(glue::kTileThreads) permute_rows(MoePermuteParams p, int64_t units) {
  glue::for_tiles(p.tokens, units, [&](int64_t token, int64_t unit) {
    const E value = (static_cast<const E*>(p.x) + token * p.x_stride)[unit];
    for (int64_t slot = token * p.k; slot < (token + 1) * p.k; ++slot) {
      const int64_t row = p.inverse[slot];
      if (row >= 0 && row < p.row_count) (static_cast<E*>(p.rows) + row * p.rows_stride)[unit] = value;
    }
  });
}

template <class E>
void run(MoePermuteParams p, NativeStream stream) {
  const int64_t elements = static_cast<int64_t>(sizeof(E)) / p.element_bytes, units = p.width / elements;
  p.x_stride /= elements;
  p.rows_stride /= elements;
  const glue::TileShape tiles = glue::tile_shape(p.tokens, units);
  launch(permute_rows<E>, tiles.grid, tiles.block, 0, stream, p, units);
}

}  // namespace

void moe_permute(const MoePermuteParams& p, NativeStream stream) {
  if (p.validate) validate("moe_permute", p.indices(), stream);
  if (p.tokens == 0 || p.width == 0) return;
  if (p.aligned) return run<uint4>(p, stream);
  if (p.element_bytes == 4) return run<uint32_t>(p, stream);
  if (p.element_bytes == 2) return run<uint16_t>(p, stream);
  run<uint8_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

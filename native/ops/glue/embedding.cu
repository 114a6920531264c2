#include "ops/glue/embedding.h"
#include "device/validate.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace glue {

// Computes: y[t] = table[ids[t]], zeros where the id is outside the table
// Shapes:   table [V,D]; ids i32 or i64 [T]; y [T,D]
// Layouts:  inner stride 1; E is a 16-byte word where every row is aligned and a multiple of it, else one element
// Tiles:    256 threads, each one E a step
// Shared:   none
// Order:    elementwise
// Numerics: bit for bit
// Needs:    sm_80
// Source:   the definition
template <class E>
__global__ void __launch_bounds__(kTileThreads) embedding_kernel(EmbeddingParams p, int64_t units) {
  for_tiles(p.tokens, units, [&](int64_t token, int64_t unit) {
    const int64_t id = p.id(token);
    E value{};
    if (p.in_table(id)) value = p.table.row<const E>(id)[unit];
    p.y.row<E>(token)[unit] = value;
  });
}

template <class E>
void launch_embedding(EmbeddingParams p, NativeStream stream) {
  const int64_t elements = static_cast<int64_t>(sizeof(E)) / p.element_bytes, units = p.columns / elements;
  p.table.stride /= elements;
  p.y.stride /= elements;
  const TileShape tiles = tile_shape(p.tokens, units);
  launch(embedding_kernel<E>, tiles.grid, tiles.block, 0, stream, p, units);
}

}  // namespace glue

void embedding(const EmbeddingParams& p, NativeStream stream) {
  if (p.tokens == 0 || p.columns == 0) return;
  if (p.validate) validate("embedding", p, stream);
  if (p.aligned && p.columns * p.element_bytes % 16 == 0) return glue::launch_embedding<uint4>(p, stream);
  if (p.element_bytes == 4) return glue::launch_embedding<uint32_t>(p, stream);
  return glue::launch_embedding<uint16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

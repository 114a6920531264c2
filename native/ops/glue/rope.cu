#include "ops/glue/rope.h"
#include "device/validate.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace glue {

// Computes: channels i and i + R/2 (interleaved: 2i and 2i + 1) of each head turned by the angle of the token's position
// Shapes:   x, y [T,H,D]; cos, sin f32 [P,R/2]; positions i64 [T]; R <= D; channels from R on are copied
// Layouts:  inner stride 1, f32, f16 or bf16; 16-byte accesses where heads and halves are aligned
// Tiles:    256 threads; a unit is a pack of one half with its partner (interleaved: a pack), or a pack to copy
// Shared:   none
// Order:    elementwise; both elements of a pair are read before either is written, so that y may be x
// Numerics: f32, rounded once
// Needs:    sm_80
// Source:   Su et al., arXiv:2104.09864
template <class T>
__global__ void __launch_bounds__(kTileThreads) rope_kernel(RopeParams p, int64_t turning_units, int64_t units) {
  constexpr int kSize = Pack<T>::kSize;
  for_tiles(p.tokens * p.heads, units, [&](int64_t row, int64_t unit) {
    const int64_t token = divide(row, p.heads), head = row - token * p.heads;
    const T* x = p.x.row<const T>(token) + head * p.x_head_stride;
    T* y = p.y.row<T>(token) + head * p.y_head_stride;
    const int64_t position = p.positions[token];
    const bool turns = p.in_table(position);
    const auto within = [&](int64_t i, int64_t end) { return end - i < kSize ? static_cast<int>(end - i) : kSize; };
    if (unit >= turning_units) {
      const int64_t i = p.turned + (unit - turning_units) * kSize;
      const int count = within(i, p.channels);
      const bool aligned = p.aligned && p.turned % kSize == 0;
      store_pack(y + i, load_pack(x + i, count, aligned), count, aligned);
    } else if (p.interleaved) {
      const int64_t i = unit * kSize;
      const int count = within(i, p.turned);
      Pack<T> v = load_pack(x + i, count, p.aligned);
      if (turns) {
        const float* cos = p.cos.row<const float>(position) + i / 2;
        const float* sin = p.sin.row<const float>(position) + i / 2;
#pragma unroll
        for (int j = 0; j < kSize; j += 2) {
          if (j >= count) break;
          const float c = __ldg(cos + j / 2), s = __ldg(sin + j / 2), a = v.v[j], b = v.v[j + 1];
          v.v[j] = a * c - b * s;
          v.v[j + 1] = b * c + a * s;
        }
      }
      store_pack(y + i, v, count, p.aligned);
    } else {
      const int64_t half = p.turned / 2, i = unit * kSize;
      const int count = within(i, half);
      Pack<T> a = load_pack(x + i, count, p.aligned), b = load_pack(x + half + i, count, p.aligned);
      if (turns) {
        const float* cos = p.cos.row<const float>(position) + i;
        const float* sin = p.sin.row<const float>(position) + i;
#pragma unroll
        for (int j = 0; j < kSize; ++j) {
          if (j >= count) break;
          const float c = __ldg(cos + j), s = __ldg(sin + j), low = a.v[j], high = b.v[j];
          a.v[j] = low * c - high * s;
          b.v[j] = high * c + low * s;
        }
      }
      store_pack(y + i, a, count, p.aligned);
      store_pack(y + half + i, b, count, p.aligned);
    }
  });
}

}  // namespace glue

void rope(const RopeParams& p, NativeStream stream) {
  if (p.tokens == 0 || p.heads == 0 || p.channels == 0) return;
  if (p.validate) validate("rope", p, stream);
  with_float(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    constexpr int64_t kSize = glue::Pack<T>::kSize;
    const int64_t turning = ((p.interleaved ? p.turned : p.turned / 2) + kSize - 1) / kSize,
                  units = turning + (p.channels - p.turned + kSize - 1) / kSize;
    const glue::TileShape tiles = glue::tile_shape(p.tokens * p.heads, units);
    launch(glue::rope_kernel<T>, tiles.grid, tiles.block, 0, stream, p, turning, units);
  });
}

}  // namespace culebra::CUL_DEVICE_NS

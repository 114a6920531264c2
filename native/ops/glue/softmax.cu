#include "ops/glue/softmax.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace glue {

// Computes: y = exp(x - max) / sum over the row
// Shapes:   x, y [T,N]; any T, N
// Layouts:  rows with inner stride 1, f32, f16 or bf16; 16-byte accesses where every row is aligned
// Tiles:    a row per team: a warp up to 1024 columns, 256 threads up to 16384, 1024 beyond
// Shared:   one float a warp
// Order:    each thread its packs in ascending order, then a butterfly over lanes, then over warps
// Numerics: f32; three looks at the row (maximum, sum, result), all but the first from L1 or L2. A NaN, +inf, or nothing but
//           -inf makes the sum NaN and so the row
// Needs:    sm_80
// Source:   the definition
template <class T, class Team>
__global__ void __launch_bounds__(Team::kBlock, 1) softmax_kernel(SoftmaxParams p) {
  Team::for_rows(p.rows, [&](int64_t row) {
    const T* x = p.x.row<const T>(row);
    float max = -INFINITY;
    Team::template for_packs<T>(p.columns, [&](int64_t i, int count) {
      const Pack<T> v = load_pack(x + i, count, p.aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j)
        if (j < count && v.v[j] > max) max = v.v[j];
    });
    max = Team::max_of(max);
    float sum = 0;
    Team::template for_packs<T>(p.columns, [&](int64_t i, int count) {
      const Pack<T> v = load_pack(x + i, count, p.aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j)
        if (j < count) sum += __expf(v.v[j] - max);
    });
    const float inverse = 1.0f / Team::sum(sum);
    Team::template for_packs<T>(p.columns, [&](int64_t i, int count) {
      Pack<T> v = load_pack(x + i, count, p.aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) v.v[j] = __expf(v.v[j] - max) * inverse;
      store_pack(p.y.row<T>(row) + i, v, count, p.aligned);
    });
  });
}

// Computes: the lowest index of the largest element of each row, NaN being larger than every number
// Shapes:   x [T,N], N in 1..2^31-1; ids i32 [T]
// Layouts:  rows with inner stride 1, f32, f16 or bf16; 16-byte accesses where every row is aligned
// Tiles:    a row per team: a warp up to 1024 columns, 256 threads up to 16384, 1024 beyond
// Shared:   one 64-bit key a warp
// Order:    the largest key (value, inverted index): any order gives the same
// Numerics: exact
// Needs:    sm_80
// Source:   the definition
template <class T, class Team>
__global__ void __launch_bounds__(Team::kBlock, 1) argmax_kernel(ArgmaxParams p) {
  Team::for_rows(p.rows, [&](int64_t row) {
    const uint64_t key = Team::argmax(p.x.row<const T>(row), p.columns, p.aligned);
    if (Team::thread() == 0) p.ids[row] = argmax_index(key);
  });
}

}  // namespace glue

void softmax(const SoftmaxParams& p, NativeStream stream) {
  if (p.rows == 0 || p.columns == 0) return;
  with_float(p.dtype, [&](auto tag) {
    glue::with_team(p.rows, p.columns, [&](auto team, dim3 blocks) {
      launch(glue::softmax_kernel<decltype(tag), decltype(team)>, blocks, dim3(team.kBlock), 0, stream, p);
    });
  });
}

void argmax(const ArgmaxParams& p, NativeStream stream) {
  if (p.rows == 0) return;
  with_float(p.dtype, [&](auto tag) {
    glue::with_team(p.rows, p.columns, [&](auto team, dim3 blocks) {
      launch(glue::argmax_kernel<decltype(tag), decltype(team)>, blocks, dim3(team.kBlock), 0, stream, p);
    });
  });
}

}  // namespace culebra::CUL_DEVICE_NS

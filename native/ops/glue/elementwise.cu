#include <utility>

#include "device/vector.h"
#include "ops/glue/elementwise.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace glue {

// Computes: y = op(inputs...), element by element
// Shapes:   one shape of up to 6 dimensions, which the plan has merged into rows and an inner dimension
// Layouts:  any strides; where all operands are contiguous and aligned inside, packs of up to 16 bytes
// Tiles:    256 threads, each one pack or one element a step
// Shared:   none
// Order:    elementwise
// Numerics: as the op says: f32 and one rounding, integers exact
// Needs:    sm_80
// Source:   the definition
template <class To, class From, class Op, int N, size_t... kInput>
CUL_DEVICE_FN void elementwise_pack(const Walk<N>& w, const Op& op, int64_t row, int64_t first, int pack,
                                    std::index_sequence<kInput...>) {
  constexpr int kPack = 16 / static_cast<int>(sizeof(To) > sizeof(From) ? sizeof(To) : sizeof(From));
  int64_t offset[N];
  w.locate(row, offset);
  To* y = reinterpret_cast<To*>(w.data[0]) + offset[0] + first * w.inner_stride[0];
  const From* x[] = {reinterpret_cast<const From*>(w.data[kInput + 1]) + offset[kInput + 1] +
                     first * w.inner_stride[kInput + 1]...};
  if (pack == 1) {
    *y = op(*x[kInput]...);
  } else if (first + kPack <= w.columns) {
    const Vector<From, kPack> in[] = {load_vector<kPack>(x[kInput])...};
    Vector<To, kPack> out;
#pragma unroll
    for (int j = 0; j < kPack; ++j) out[j] = op(in[kInput][j]...);
    store_vector(y, out);
  } else {
    for (int j = 0; first + j < w.columns; ++j) y[j] = op(x[kInput][j]...);
  }
}

// Computes: y = op(x...), element by element
// Shapes:   any, walked as rows of columns
// Layouts:  any strides; packs of 16 bytes where all of them allow
// Tiles:    tiles.cuh: a pack a thread
// Shared:   none
// Order:    of no consequence
// Numerics: f32 between reading and rounding; casts and copies as op has them
// Needs:    sm_80. Limit: the bytes of operands and result
// Source:   ours
template <class To, class From, class Op, int N>
__global__ void __launch_bounds__(kTileThreads) elementwise_kernel(Walk<N> w, Op op, int pack, int64_t units) {
  for_tiles(w.rows, units, [&](int64_t row, int64_t unit) {
    elementwise_pack<To, From>(w, op, row, unit * pack, pack, std::make_index_sequence<N - 1>());
  });
}

template <class To, class From, class Op, int N>
void launch_elementwise(const Walk<N>& w, const Op& op, NativeStream stream) {
  if (w.rows == 0) return;
  constexpr int kPack = 16 / static_cast<int>(std::max(sizeof(To), sizeof(From)));
  int64_t element_bytes[N] = {sizeof(To)};
  for (int n = 1; n < N; ++n) element_bytes[n] = sizeof(From);
  const int pack = w.aligned(kPack, element_bytes) ? kPack : 1;
  const int64_t units = (w.columns + pack - 1) / pack;
  const TileShape tiles = tile_shape(w.rows, units);
  launch(elementwise_kernel<To, From, Op, N>, tiles.grid, tiles.block, 0, stream, w, op, pack, units);
}

}  // namespace glue

void add(const AddParams& p, NativeStream stream) {
  with_element(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (glue::kAddable<T>) glue::launch_elementwise<T, T>(p.walk, glue::AddOp(), stream);
  });
}

void scale(const ScaleParams& p, NativeStream stream) {
  with_float(p.dtype, [&](auto tag) {
    glue::launch_elementwise<decltype(tag), decltype(tag)>(p.walk, glue::ScaleOp{p.factor}, stream);
  });
}

void cast(const CastParams& p, NativeStream stream) {
  with_element(p.from, [&](auto from) {
    with_element(p.to, [&](auto to) {
      glue::launch_elementwise<decltype(to), decltype(from)>(p.walk, glue::CastOp<decltype(to)>(), stream);
    });
  });
}

void copy_strided(const CopyStridedParams& p, NativeStream stream) {
  with_bytes(p.element_bytes, [&](auto tag) {
    glue::launch_elementwise<decltype(tag), decltype(tag)>(p.walk, glue::CopyOp(), stream);
  });
}

}  // namespace culebra::CUL_DEVICE_NS

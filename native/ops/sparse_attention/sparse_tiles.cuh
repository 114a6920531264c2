// From this family's calls to the loops of ops/attention/tile: the problem, the rows, the launches.
#pragma once
#include "ops/attention/tile/dense_tour.cuh"
#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/half_tile.cuh"
#include "ops/sparse_attention/packed.h"

namespace culebra::CUL_DEVICE_NS {

// Of a tour: no e4m3 (a base of its own, because a member that only a template asks for is unused to nvcc).
struct PlainKeys {
  static constexpr bool kPlainKeys = true;
};

inline ByteRows byte_rows(const TokenRows& x, int64_t element_bytes) {
  ByteRows rows;
  rows.data = static_cast<char*>(x.data);
  rows.row = x.row * element_bytes;
  rows.head = x.head * element_bytes;
  return rows;
}

inline Problem sparse_problem(int64_t dim, int64_t value_dim, float scale, bool aligned, const void* anywhere) {
  Problem problem{};
  problem.dim = static_cast<int32_t>(dim);
  problem.value_dim = static_cast<int32_t>(value_dim);
  problem.scale = scale;
  problem.aligned = aligned;
  problem.anywhere = anywhere;
  problem.splits = 1;
  return problem;
}
inline Problem sparse_problem(const PackedHeads& p) { return sparse_problem(p.dim, p.value_dim, p.scale, p.aligned, p.q.data); }

// Rows of a tile in the loop that launch_tours chooses. F32: the tile of f32 operands, SmallF32Tile where a tour's rows need many registers.
using SmallF32Tile = F32Tile<256, 2>;
template <class F32 = F32Tile<>>
int tile_rows(DType type) {
  return type == DType::f32 ? F32::kRows : 64;
}

template <class T, class Tours>
void launch_half_tours(const Problem& problem, const Tours& tours, int64_t tiles, NativeStream stream) {
  if (problem.dim <= 128 && problem.value_dim <= 128)
    launch_half<HalfTile<T, 128>>(problem, tours, tiles, stream);
  else
    launch_half<HalfTile<T, 256>>(problem, tours, tiles, stream);
}
template <class F32 = F32Tile<>, class Tours>
void launch_tours(DType type, const Problem& problem, const Tours& tours, int64_t tiles, NativeStream stream) {
  if (type == DType::f16)
    launch_half_tours<half_t>(problem, tours, tiles, stream);
  else if (type == DType::bf16)
    launch_half_tours<bfloat16_t>(problem, tours, tiles, stream);
  else
    launch_f32<F32>(problem, tours, tiles, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

// How this family's kernels share out work. Elementwise ones: for_tiles, every thread one pack (the elements of a 16-byte
// access) of one row at a time. Row reductions: Team, a warp or a block for one row.
#pragma once
#include "device/barrier.h"
#include "device/launch.h"
#include "device/portable.h"
#include "device/warp.h"
#include "ops/glue/rows.h"
#include "ops/glue/softmax.h"

namespace culebra::CUL_DEVICE_NS::glue {
using namespace culebra::glue;

// ---- packs

template <class T>
struct Pack {
  static constexpr int kSize = 16 / sizeof(T);
  float v[kSize];
};

// `count` elements of T at p, the others 0. Where `aligned`, p is 16-byte aligned.
template <class T>
CUL_DEVICE_FN Pack<T> load_pack(const T* p, int count, bool aligned) {
  Pack<T> pack;
  if (aligned && count == Pack<T>::kSize) {
    const uint4 raw = *reinterpret_cast<const uint4*>(p);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < 4; ++i) pack.v[i] = __uint_as_float(words[i]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        pack.v[2 * i] = low_float<T>(words[i]);
        pack.v[2 * i + 1] = high_float<T>(words[i]);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < Pack<T>::kSize; ++i) pack.v[i] = i < count ? to_float(p[i]) : 0.0f;
  }
  return pack;
}

template <class T>
CUL_DEVICE_FN void store_pack(T* p, const Pack<T>& pack, int count, bool aligned) {
  if (aligned && count == Pack<T>::kSize) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(T) == 4) {
        words[i] = __float_as_uint(pack.v[i]);
      } else {
        words[i] = pack2<T>(pack.v[2 * i], pack.v[2 * i + 1]);
      }
    }
    *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
  } else {
#pragma unroll
    for (int i = 0; i < Pack<T>::kSize; ++i)
      if (i < count) p[i] = from_float<T>(pack.v[i]);
  }
}

// ---- elementwise work: rows of `units` (packs, pairs, elements)

inline constexpr int kTileThreads = 256;
inline constexpr int64_t kMaxGrid = 0x7fffffff;

struct TileShape {
  dim3 grid, block;
};
// A tile is kTileThreads units: of one row, or of several short ones.
inline TileShape tile_shape(int64_t rows, int64_t units) {
  unsigned across = 1;
  while (across < kTileThreads && across < units) across *= 2;
  const unsigned down = kTileThreads / across;
  const int64_t tiles = (rows + down - 1) / down * ((units + across - 1) / across);
  return {dim3(static_cast<unsigned>(std::clamp<int64_t>(tiles, 1, kMaxGrid))), dim3(across, down)};
}

// f(row, unit) for every unit of every row, of a launch of tile_shape(rows, units).
template <class F>
CUL_DEVICE_FN void for_tiles(int64_t rows, int64_t units, F f) {
  const int64_t across = (units + blockDim.x - 1) / blockDim.x, tiles = (rows + blockDim.y - 1) / blockDim.y * across;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t row_of_tiles = divide(tile, across);
    const int64_t row = row_of_tiles * blockDim.y + threadIdx.y;
    const int64_t unit = (tile - row_of_tiles * across) * blockDim.x + threadIdx.x;
    if (row < rows && unit < units) f(row, unit);
  }
}

// ---- row reductions

// The threads that share one row: a warp, four of which make a block, or a whole block.
template <int kThreads>
struct Team {
  static constexpr bool kWarp = kThreads == 32;
  static constexpr int kRowsPerBlock = kWarp ? 4 : 1;
  static constexpr int kBlock = kThreads * kRowsPerBlock;

  CUL_DEVICE_FN static int thread() { return kWarp ? threadIdx.x % 32 : threadIdx.x; }

  // f(row) for every row; all threads of a team run it together.
  template <class F>
  CUL_DEVICE_FN static void for_rows(int64_t rows, F f) {
    for (int64_t row = blockIdx.x * int64_t{kRowsPerBlock} + threadIdx.x / kThreads; row < rows;
         row += gridDim.x * int64_t{kRowsPerBlock})
      f(row);
  }

  // f(first, count) over the packs of a row that are this thread's.
  template <class T, class F>
  CUL_DEVICE_FN static void for_packs(int64_t columns, F f) {
    constexpr int kSize = Pack<T>::kSize;
    for (int64_t i = int64_t{thread()} * kSize; i < columns; i += int64_t{kThreads} * kSize)
      f(i, columns - i < kSize ? static_cast<int>(columns - i) : kSize);
  }

  // The same value in every thread, combined in a fixed order. combine is associative and commutative.
  template <class T, class Combine>
  CUL_DEVICE_FN static T reduce(T value, Combine combine) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) value = combine(value, __shfl_xor_sync(kFullMask, value, lanes));
    if constexpr (!kWarp) {
      constexpr int kWarps = kThreads / 32;
      CUL_SHARED(T, of_warp, [kWarps]);
      if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
      __syncthreads();
      value = of_warp[threadIdx.x % kWarps];
#pragma unroll
      for (int lanes = kWarps / 2; lanes > 0; lanes /= 2)
        value = combine(value, __shfl_xor_sync(kFullMask, value, lanes));
      __syncthreads();  // of_warp is free again
    }
    return value;
  }
  CUL_DEVICE_FN static float sum(float value) {
    return reduce(value, [](float a, float b) { return a + b; });
  }
  CUL_DEVICE_FN static float max_of(float value) {
    return reduce(value, [](float a, float b) { return a > b ? a : b; });
  }
  // The argmax_key (softmax.h) of a row.
  template <class T>
  CUL_DEVICE_FN static uint64_t argmax(const T* x, int64_t columns, bool aligned) {
    uint64_t best = 0;
    for_packs<T>(columns, [&](int64_t i, int count) {
      const Pack<T> v = load_pack(x + i, count, aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) {
        const uint64_t key = j < count ? argmax_key(v.v[j], i + j) : 0;
        best = key > best ? key : best;
      }
    });
    return reduce(best, [](uint64_t a, uint64_t b) { return a > b ? a : b; });
  }
};

// f(team, blocks): a warp for short rows, up to 1024 threads for long ones.
template <class F>
void with_team(int64_t rows, int64_t columns, F&& f) {
  const auto blocks = [rows](int rows_per_block) {
    return dim3(static_cast<unsigned>(std::min((rows + rows_per_block - 1) / rows_per_block, kMaxGrid)));
  };
  if (columns <= 1024) return f(Team<32>(), blocks(Team<32>::kRowsPerBlock));
  if (columns <= 16384) return f(Team<256>(), blocks(1));
  return f(Team<1024>(), blocks(1));
}

}  // namespace culebra::CUL_DEVICE_NS::glue

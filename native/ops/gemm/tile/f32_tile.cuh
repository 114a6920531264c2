// The f32 products' tile: 64 x 64 results of a b^T by FMAs, 16 k at a time, 4 x 4 a thread.
#pragma once
#include "device/barrier.h"
#include "device/launch.h"

namespace culebra::CUL_DEVICE_NS {

inline constexpr int kF32Tile = 64, kF32Depth = 16, kF32Threads = 256;

// sum[i][j] = the product of a's row row0 + thread / 16 + 16 i and b's row column0 + thread % 16 + 16 j, one FMA chain in the order of
// k; zero beyond the matrices. Every thread of the block calls. The next k is in registers while the present one is multiplied.
CUL_DEVICE_FN void f32_tile(const float* a, int64_t lda, int64_t rows, const float* b, int64_t ldb, int64_t columns, int64_t k,
                            int64_t row0, int64_t column0, float (&sum)[4][4]) {
  CUL_SHARED(float, a_tile, [kF32Depth][kF32Tile + 4]);
  CUL_SHARED(float, b_tile, [kF32Depth][kF32Tile + 4]);
  const int thread = static_cast<int>(threadIdx.x), tx = thread % 16, ty = thread / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] = 0.0f;

  // Thread (tx, ty) fetches k = tx of the rows ty, ty + 16, ...
  float next_a[4], next_b[4];
  const auto fetch = [&](int64_t k0) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = row0 + ty + 16 * i, column = column0 + ty + 16 * i, depth = k0 + tx;
      next_a[i] = row < rows && depth < k ? a[row * lda + depth] : 0.0f;
      next_b[i] = column < columns && depth < k ? b[column * ldb + depth] : 0.0f;
    }
  };
  fetch(0);
  for (int64_t k0 = 0; k0 < k; k0 += kF32Depth) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a_tile[tx][ty + 16 * i] = next_a[i];
      b_tile[tx][ty + 16 * i] = next_b[i];
    }
    __syncthreads();
    if (k0 + kF32Depth < k) fetch(k0 + kF32Depth);
#pragma unroll
    for (int depth = 0; depth < kF32Depth; ++depth) {
      float x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[i] = a_tile[depth][ty + 16 * i];
        y[i] = b_tile[depth][tx + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
    }
    __syncthreads();
  }
}

}  // namespace culebra::CUL_DEVICE_NS

// Rows of bytes that do not start at multiples of 16, copied so that they do.
#pragma once
#include "device/launch.h"
#include "device/vector.h"

namespace culebra::CUL_DEVICE_NS {

inline constexpr int kAlignThreads = 256;

CUL_NUMERIC int64_t aligned_row(int64_t columns) { return (columns + 15) / 16 * 16; }

// Computes: out[r][i] = x[r][i], 0 beyond columns.
// Shapes:   x [rows, columns] bytes -> out [rows, columns rounded up to 16], compact.
// Layouts:  row-major, any row stride of x.
// Tiles:    16 bytes of one row per thread, one 16-byte store; grid-stride.
// Shared:   none.
// Order:    none: a copy.
// Numerics: exact.
// Needs:    sm_80. Limit: 2 rows columns bytes.
// Source:   the copy engine takes only such rows; a product that meets others pays for one more pass over them.
static __global__ void __launch_bounds__(kAlignThreads)
    align_rows_kernel(const uint8_t* x, int64_t stride, uint8_t* out, int64_t rows, int64_t columns) {
  const int64_t chunks = aligned_row(columns) / 16, step = static_cast<int64_t>(gridDim.x) * kAlignThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAlignThreads + threadIdx.x; i < rows * chunks; i += step) {
    const int64_t row = i / chunks, column = i % chunks * 16;
    Vector<uint8_t, 16> bytes;
#pragma unroll
    for (int j = 0; j < 16; ++j) bytes[j] = column + j < columns ? x[row * stride + column + j] : uint8_t{0};
    store_vector(out + i * 16, bytes);
  }
}

inline uint8_t* align_rows(const uint8_t* x, int64_t stride, int64_t rows, int64_t columns, uint8_t* out, NativeStream stream) {
  const int64_t blocks = (rows * aligned_row(columns) / 16 + kAlignThreads - 1) / kAlignThreads;
  if (blocks > 0)
    launch(align_rows_kernel, dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)), dim3(kAlignThreads), 0, stream, x,
           stride, out, rows, columns);
  return out;
}

}  // namespace culebra::CUL_DEVICE_NS

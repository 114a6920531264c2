#include "ops/gemm/tile/gather_columns.cuh"

#include "device/vector.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256;

// Computes: out[m][j] = a[m][perm[j]], 0 where perm[j] < 0.
// Shapes:   a [m, k], perm [k_padded], out [m, k_padded]; k_padded a multiple of 64.
// Layouts:  row-major; elements of 16 bits, moved as they are.
// Tiles:    8 columns of one row per thread, one 16-byte store; grid-stride.
// Shared:   none.
// Order:    none: a copy.
// Numerics: exact.
// Needs:    sm_80. Limit: 2 m (k + k_padded) bytes.
// Source:   act-order (GPTQ): a gather before the product reads each element of a once; gathering while loading tiles would do
//           it once per column tile, two bytes at a time, inside the pipeline.
__global__ void __launch_bounds__(kThreads)
    gather_columns_kernel(const uint16_t* a, int64_t lda, const int32_t* perm, uint16_t* out, int64_t m, int64_t k_padded) {
  const int64_t chunks = k_padded / 8, step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < m * chunks; i += step) {
    const int64_t row = i / chunks, column = i % chunks * 8;
    Vector<uint16_t, 8> values;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int32_t from = perm[column + j];
      values[j] = from >= 0 ? a[row * lda + from] : uint16_t{0};
    }
    store_vector(out + row * k_padded + column, values);
  }
}

}  // namespace

void gather_columns(const void* a, int64_t lda, const int32_t* perm, void* out, int64_t m, int64_t k_padded, NativeStream stream) {
  const int64_t blocks = (m * k_padded / 8 + kThreads - 1) / kThreads;
  launch(gather_columns_kernel, dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)), dim3(kThreads), 0, stream,
         static_cast<const uint16_t*>(a), lda, perm, static_cast<uint16_t*>(out), m, k_padded);
}

}  // namespace culebra::CUL_DEVICE_NS

// The rows that a grouped product reads, one after the other: the copy engine takes no list of rows.
#pragma once
#include "device/launch.h"
#include "device/vector.h"
#include "ops/moe/grouped_gemm.h"

namespace culebra::CUL_DEVICE_NS {

inline constexpr int kGatherThreads = 256, kBehind = 256;

// Computes: out[r] = x[gather[r]] for r < *used; zeros where gather[r] names no row, and in the kBehind rows after the last one: a tile
//           of the product may reach over them.
// Shapes:   x [x_rows, columns], gather [rows], out [rows, columns rounded up to kWord].
// Layouts:  row-major; rows of x at multiples of kWord elements, those of out compact.
// Tiles:    kWord elements of a row a thread, the end of a row element by element; grid-stride.
// Shared:   none.
// Order:    none: a copy.
// Numerics: exact; E has the bits of an element.
// Needs:    sm_80. Limit: 2 rows columns elements moved.
// Source:   the definition. ScatterMoE (arXiv:2403.08245) fuses it into the product, as the kernels for sm_80 here do.
template <class E, int kWord>
__global__ void __launch_bounds__(kGatherThreads)
    gather_rows_kernel(const E* x, int64_t stride, int64_t x_rows, const int32_t* gather, const int64_t* used, int64_t rows, int64_t columns, E* out) {
  const int64_t words = (columns + kWord - 1) / kWord, step = static_cast<int64_t>(gridDim.x) * kGatherThreads;
  const int64_t last = *used + kBehind, end = (last < rows ? last : rows) * words;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGatherThreads + threadIdx.x; i < end; i += step) {
    const int64_t row = i / words, column = i % words * kWord, from = row < *used ? gather[row] : -1;
    const bool inside = from >= 0 && from < x_rows;
    const E* const source = x + (inside ? from * stride + column : 0);
    Vector<E, kWord> values{};
    if (inside && column + kWord <= columns) {
      values = load_vector<kWord>(source);
    } else if (inside) {
#pragma unroll
      for (int j = 0; j < kWord; ++j)
        if (column + j < columns) values[j] = source[j];
    }
    store_vector(out + i * kWord, values);
  }
}

template <class E, int kWord = 16 / static_cast<int>(sizeof(E))>
void gather_rows(const void* x, int64_t stride, int64_t x_rows, const int32_t* gather, const int64_t* used, int64_t rows, int64_t columns, void* out,
                 NativeStream stream) {
  const int64_t blocks = (rows * ((columns + kWord - 1) / kWord) + kGatherThreads - 1) / kGatherThreads;
  if (blocks > 0)
    launch(gather_rows_kernel<E, kWord>, dim3(static_cast<unsigned>(blocks < 1 << 20 ? blocks : 1 << 20)), dim3(kGatherThreads), 0, stream,
           static_cast<const E*>(x), stride, x_rows, gather, used, rows, columns, static_cast<E*>(out));
}

}  // namespace culebra::CUL_DEVICE_NS

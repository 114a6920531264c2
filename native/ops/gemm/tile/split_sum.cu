#include "ops/gemm/tile/epilogue.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256;

// Computes: c = epilogue(sum over splits + bias).
// Shapes:   partials [splits, m, width], width >= n; c [m, n], or [m, n / 2] with silu_mul.
// Layouts:  row-major.
// Tiles:    one element of c per thread; grid-stride beyond 2^31 blocks' reach.
// Shared:   none.
// Order:    splits ascending.
// Numerics: f32, one rounding to c.
// Needs:    sm_80. Limit: 4 bytes x splits per element read, c written once.
// Source:   fixed-order split-K, so that results are the same in every run.
template <class T>
__global__ void __launch_bounds__(kThreads) sum_splits_kernel(Output o, const float* partials, int64_t width, int64_t splits) {
  const bool gated = o.activation == Activation::silu_mul;
  const int64_t columns = gated ? o.n / 2 : o.n, elements = o.m * columns;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < elements; i += step) {
    const int64_t token = i / columns, column = i % columns;
    const auto total = [&](int64_t n) {
      float sum = 0;
      for (int64_t s = 0; s < splits; ++s) sum += partials[(s * o.m + token) * width + n];
      return sum + bias_of<T>(o, n);
    };
    const float x = total(column);
    store_element(o, token, column, gated ? silu(x) * total(column + columns) : activate(x, o.activation));
  }
}

}  // namespace

template <class T>
void sum_splits(const Output& output, const float* partials, int64_t width, int64_t splits, NativeStream stream) {
  const int64_t elements = output.m * (output.activation == Activation::silu_mul ? output.n / 2 : output.n);
  const int64_t blocks = (elements + kThreads - 1) / kThreads;
  launch(sum_splits_kernel<T>, dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)), dim3(kThreads), 0, stream,
         output, partials, width, splits);
}

template void sum_splits<half_t>(const Output&, const float*, int64_t, int64_t, NativeStream);
template void sum_splits<bfloat16_t>(const Output&, const float*, int64_t, int64_t, NativeStream);

}  // namespace culebra::CUL_DEVICE_NS

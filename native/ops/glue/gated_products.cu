#include "ops/glue/gated_products.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace glue {

// 1 + e^-x may overflow to infinity, which gives 0.
CUL_DEVICE_FN float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

template <Activation kActivation>
CUL_DEVICE_FN float activated(float x) {
  if constexpr (kActivation == Activation::silu) {
    return x * sigmoid(x);
  } else if constexpr (kActivation == Activation::gelu_erf) {
    return 0.5f * x * erfcf(x * -0.70710678f);
  } else if constexpr (kActivation == Activation::gelu_tanh) {
    // x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
    return x * sigmoid(1.5957691f * fmaf(0.044715f * x, x * x, x));
  } else {
    return sigmoid(x);
  }
}

// Computes: y = value * activation(gate)
// Shapes:   value, y [T,I]; gate [T,I] or [T,1]; any T, I
// Layouts:  rows with inner stride 1, f32, f16 or bf16; 16-byte accesses where every row is aligned; compact operands are one row
// Tiles:    256 threads, each one 16-byte pack a step
// Shared:   none
// Order:    elementwise
// Numerics: f32, rounded once; __expf is within 2 ulp and 1.2 |x| ulp, which a sigmoid damps
// Needs:    sm_80
// Source:   Shazeer, arXiv:2002.05202
template <class T, Activation kActivation>
__global__ void __launch_bounds__(kTileThreads) gated_product_kernel(GatedProductParams p) {
  constexpr int kSize = Pack<T>::kSize;
  for_tiles(p.rows, (p.columns + kSize - 1) / kSize, [&](int64_t row, int64_t unit) {
    const int64_t i = unit * kSize;
    const int count = p.columns - i < kSize ? static_cast<int>(p.columns - i) : kSize;
    Pack<T> value = load_pack(p.value.row<const T>(row) + i, count, p.aligned);
    if (p.gate_per_row) {
      const float factor = activated<kActivation>(to_float(*p.gate.row<const T>(row)));
#pragma unroll
      for (int j = 0; j < kSize; ++j) value.v[j] *= factor;
    } else {
      const Pack<T> gate = load_pack(p.gate.row<const T>(row) + i, count, p.aligned);
#pragma unroll
      for (int j = 0; j < kSize; ++j) value.v[j] *= activated<kActivation>(gate.v[j]);
    }
    store_pack(p.y.row<T>(row) + i, value, count, p.aligned);
  });
}

template <Activation kActivation>
void launch_gated_product(const GatedProductParams& p, NativeStream stream) {
  with_float(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    const TileShape tiles = tile_shape(p.rows, (p.columns + Pack<T>::kSize - 1) / Pack<T>::kSize);
    launch(gated_product_kernel<T, kActivation>, tiles.grid, tiles.block, 0, stream, p);
  });
}

}  // namespace glue

void gated_product(const GatedProductParams& p, NativeStream stream) {
  if (p.rows == 0 || p.columns == 0) return;
  switch (p.activation) {
    case Activation::silu: return glue::launch_gated_product<Activation::silu>(p, stream);
    case Activation::gelu_erf: return glue::launch_gated_product<Activation::gelu_erf>(p, stream);
    case Activation::gelu_tanh: return glue::launch_gated_product<Activation::gelu_tanh>(p, stream);
    case Activation::sigmoid: return glue::launch_gated_product<Activation::sigmoid>(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

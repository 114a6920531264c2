#include "ops/glue/norms.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace glue {

// Computes: y = h / sqrt(mean(h^2) + eps) * gain, h = x + residual; residual_out = h
// Shapes:   x, residual, y, residual_out [T,D]; weight [D]; any T, D
// Layouts:  rows with inner stride 1, f32, f16 or bf16; 16-byte accesses where every row is aligned
// Tiles:    a row per team: a warp up to 1024 columns, 256 threads up to 16384, 1024 beyond
// Shared:   one float a warp
// Order:    each thread its packs in ascending order, then a butterfly over lanes, then over warps
// Numerics: f32 sums; h is rounded to the dtype before it is used
// Needs:    sm_80
// Source:   Zhang and Sennrich, arXiv:1910.07467
template <class T, class Team>
__global__ void __launch_bounds__(Team::kBlock, 1) rms_norm_kernel(RmsNormParams p) {
  Team::for_rows(p.rows, [&](int64_t row) {
    const T* x = p.x.row<const T>(row);
    const auto sum = [&](int64_t i, int count) {
      Pack<T> h = load_pack(x + i, count, p.aligned);
      if (p.residual) {
        const Pack<T> r = load_pack(p.residual.row<const T>(row) + i, count, p.aligned);
#pragma unroll
        for (int j = 0; j < Pack<T>::kSize; ++j) h.v[j] = to_float(from_float<T>(h.v[j] + r.v[j]));
      }
      return h;
    };
    float squares = 0;
    Team::template for_packs<T>(p.columns, [&](int64_t i, int count) {
      const Pack<T> h = sum(i, count);
      if (p.residual_out) store_pack(p.residual_out.row<T>(row) + i, h, count, p.aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) squares = fmaf(h.v[j], h.v[j], squares);
    });
    const float inverse = 1.0f / sqrtf(Team::sum(squares) / static_cast<float>(p.columns) + p.eps);
    const float offset = p.zero_centered ? 1.0f : 0.0f;
    const T* weight = static_cast<const T*>(p.weight);
    // The second look at the row comes from L1 or L2. residual_out may have taken the place of x or residual: what this
    // thread stored there is h.
    Team::template for_packs<T>(p.columns, [&](int64_t i, int count) {
      Pack<T> h = p.residual_out ? load_pack<T>(p.residual_out.row<T>(row) + i, count, p.aligned) : sum(i, count);
      const Pack<T> w = load_pack(weight + i, count, true);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) h.v[j] = h.v[j] * inverse * (w.v[j] + offset);
      store_pack(p.y.row<T>(row) + i, h, count, p.aligned);
    });
  });
}

// Computes: y = (x - mean) / sqrt(var + eps) * weight + bias
// Shapes:   x, y [T,D]; weight, bias [D]; any T, D
// Layouts:  rows with inner stride 1, f32, f16 or bf16; 16-byte accesses where every row is aligned
// Tiles:    a row per team: a warp up to 1024 columns, 256 threads up to 16384, 1024 beyond
// Shared:   one float a warp
// Order:    each thread its packs in ascending order, then a butterfly over lanes, then over warps
// Numerics: f32; the variance is summed about the mean, not as a difference of sums
// Needs:    sm_80
// Source:   Ba, Kiros and Hinton, arXiv:1607.06450
template <class T, class Team>
__global__ void __launch_bounds__(Team::kBlock, 1) layer_norm_kernel(LayerNormParams p) {
  Team::for_rows(p.rows, [&](int64_t row) {
    const T* x = p.x.row<const T>(row);
    const auto columns = static_cast<float>(p.columns);
    float total = 0;
    Team::template for_packs<T>(p.columns, [&](int64_t i, int count) {
      const Pack<T> v = load_pack(x + i, count, p.aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) total += v.v[j];
    });
    const float mean = Team::sum(total) / columns;
    float squares = 0;
    Team::template for_packs<T>(p.columns, [&](int64_t i, int count) {
      const Pack<T> v = load_pack(x + i, count, p.aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) {
        const float c = j < count ? v.v[j] - mean : 0.0f;
        squares = fmaf(c, c, squares);
      }
    });
    const float inverse = 1.0f / sqrtf(Team::sum(squares) / columns + p.eps);
    Team::template for_packs<T>(p.columns, [&](int64_t i, int count) {
      Pack<T> v = load_pack(x + i, count, p.aligned);
      const Pack<T> w = load_pack(static_cast<const T*>(p.weight) + i, count, true);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) v.v[j] = (v.v[j] - mean) * inverse * w.v[j];
      if (p.bias) {
        const Pack<T> b = load_pack(static_cast<const T*>(p.bias) + i, count, true);
#pragma unroll
        for (int j = 0; j < Pack<T>::kSize; ++j) v.v[j] += b.v[j];
      }
      store_pack(p.y.row<T>(row) + i, v, count, p.aligned);
    });
  });
}

}  // namespace glue

void rms_norm(const RmsNormParams& p, NativeStream stream) {
  if (p.rows == 0 || p.columns == 0) return;
  with_float(p.dtype, [&](auto tag) {
    glue::with_team(p.rows, p.columns, [&](auto team, dim3 blocks) {
      launch(glue::rms_norm_kernel<decltype(tag), decltype(team)>, blocks, dim3(team.kBlock), 0, stream, p);
    });
  });
}

void layer_norm(const LayerNormParams& p, NativeStream stream) {
  if (p.rows == 0 || p.columns == 0) return;
  with_float(p.dtype, [&](auto tag) {
    glue::with_team(p.rows, p.columns, [&](auto team, dim3 blocks) {
      launch(glue::layer_norm_kernel<decltype(tag), decltype(team)>, blocks, dim3(team.kBlock), 0, stream, p);
    });
  });
}

}  // namespace culebra::CUL_DEVICE_NS

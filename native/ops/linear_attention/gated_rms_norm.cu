#include "ops/linear_attention/gated_rms_norm.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using glue::load_pack;
using glue::Pack;
using glue::store_pack;

// What the launch knows of the rows: groups of channels are rows of their own.
struct Shape {
  int64_t rows, columns;  // rows = all rows x groups
  bool aligned;
};

CUL_DEVICE_FN float activated(float gate, bool sigmoid) {
  const float s = 1.0f / (1.0f + expf(-gate));
  return sigmoid ? s : gate * s;
}

// The square of a large f32 or bf16 is none in f32: their rows are summed in double, as on the cpu.
template <class T>
struct Squares {
  using type = float;
};
template <>
struct Squares<float> {
  using type = double;
};
template <>
struct Squares<bfloat16_t> {
  using type = double;
};

// Computes: y = rms(x) weight act(gate), or rms(x act(gate)) weight; rms(h) = h / sqrt(mean(h^2) + eps) a group of channels
// Shapes:   x, gate, y [...,D]; weight [D]; D = groups x columns
// Layouts:  rows with inner stride 1, f32, f16 or bf16, weight the same or f32; 16-byte accesses where all is aligned
// Tiles:    a group of a row per team: a warp up to 1024 columns, 256 threads up to 16384, 1024 beyond
// Shared:   one number a warp
// Order:    each thread its packs in ascending order, then a butterfly over lanes, then over warps
// Numerics: f32, the squares of f32 and bf16 rows in double; y may be x or gate: a thread reads its pack before it writes it
// Needs:    sm_80. Limit: x, gate and y once each; the second look at a row comes from L1
// Source:   Zhang and Sennrich, arXiv:1910.07467; Dao and Gu, arXiv:2405.21060 (gate and groups)
template <class T, class Team>
__global__ void __launch_bounds__(Team::kBlock, 1) gated_rms_norm_kernel(GatedRmsNormParams p, Shape s) {
  using Sum = typename Squares<T>::type;
  Team::for_rows(s.rows, [&](int64_t unit) {
    const int64_t row = divide(unit, p.groups), first = (unit - row * p.groups) * s.columns;
    const int64_t inner = divide(row, p.shape[2]), outer = divide(inner, p.shape[1]);
    const int64_t at[3] = {outer, inner - outer * p.shape[1], row - inner * p.shape[2]};
    const auto row_of = [&](const GatedRmsNormParams::Rows& r) {
      return static_cast<T*>(r.data) + at[0] * r.stride[0] + at[1] * r.stride[1] + at[2] * r.stride[2] + first;
    };
    const T* x = row_of(p.x);
    const bool gated = p.gate.data != nullptr;
    const T* gate = gated ? row_of(p.gate) : nullptr;
    T* y = row_of(p.y);
    const auto load = [&](int64_t i, int count, bool times_gate) {
      Pack<T> h = load_pack(x + i, count, s.aligned);
      if (times_gate) {
        const Pack<T> g = load_pack(gate + i, count, s.aligned);
#pragma unroll
        for (int j = 0; j < Pack<T>::kSize; ++j) h.v[j] *= activated(g.v[j], p.sigmoid);
      }
      return h;
    };
    const bool gate_first = gated && !p.norm_before_gate;
    Sum squares = 0;
    Team::template for_packs<T>(s.columns, [&](int64_t i, int count) {
      const Pack<T> h = load(i, count, gate_first);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) squares += static_cast<Sum>(h.v[j]) * static_cast<Sum>(h.v[j]);
    });
    squares = Team::reduce(squares, [](Sum a, Sum b) { return a + b; });
    const Sum mean = squares / static_cast<Sum>(s.columns) + static_cast<Sum>(p.eps);
    const float factor = static_cast<float>(Sum{1} / sqrt(mean));
    Team::template for_packs<T>(s.columns, [&](int64_t i, int count) {
      Pack<T> h = load(i, count, gate_first);
      Pack<T> g;
      if (gated && !gate_first) g = load_pack(gate + i, count, s.aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) {
        if (j >= count) break;
        const int64_t channel = first + i + j;
        const float w = p.weight_dtype == DType::f32 ? static_cast<const float*>(p.weight)[channel]
                                                     : to_float(static_cast<const T*>(p.weight)[channel]);
        h.v[j] = h.v[j] * factor * w;
        if (gated && !gate_first) h.v[j] *= activated(g.v[j], p.sigmoid);
      }
      store_pack(y + i, h, count, s.aligned);
    });
  });
}

}  // namespace

void gated_rms_norm(const GatedRmsNormParams& p, NativeStream stream) {
  if (p.rows() == 0 || p.dim == 0) return;
  Shape s{p.rows() * p.groups, p.dim / p.groups, true};
  const int64_t pack = glue::pack_of(p.dtype);
  s.aligned = s.columns % pack == 0 || p.groups == 1;
  for (const auto* r : {&p.x, &p.gate, &p.y})
    for (int i = 0; i < 3; ++i)
      if (r->data && p.shape[i] > 1 && r->stride[i] % pack) s.aligned = false;
  with_float(p.dtype, [&](auto tag) {
    glue::with_team(s.rows, s.columns, [&](auto team, dim3 blocks) {
      launch(gated_rms_norm_kernel<decltype(tag), decltype(team)>, blocks, dim3(team.kBlock), 0, stream, p, s);
    });
  });
}

}  // namespace culebra::CUL_DEVICE_NS

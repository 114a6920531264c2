// What happens to a finished sum of a grouped product: bias of its expert, activation of gate and up, one rounding to c's type.
#pragma once
#include "ops/gemm/tile/epilogue.cuh"
#include "ops/moe/grouped_gemm.h"

namespace culebra::CUL_DEVICE_NS {

struct GroupedEpilogue {
  Output c;             // its columns: c.n
  const void* bias;     // [E, columns or 2 columns], or null
  int64_t bias_stride;
  DType bias_dtype;
  GroupedAct act;
  float alpha, limit;

  CUL_DEVICE_FN float bias_at(int64_t expert, int64_t column) const {
    if (!bias) return 0.0f;
    const uint16_t bits = static_cast<const uint16_t*>(bias)[expert * bias_stride + column];
    return bias_dtype == DType::bf16 ? to_float(bfloat16_t{bits}) : to_float(half_t{bits});
  }
  CUL_DEVICE_FN float activated(float gate, float up) const {
    if (act == GroupedAct::silu_mul) return silu(gate) * up;
    if (act == GroupedAct::gelu_mul) return activate(gate, Activation::gelu) * up;
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up < -limit ? -limit : up;
    return (up + 1.0f) * gate / (1.0f + expf(-alpha * gate));
  }
  // Columns of c from `column` on (a multiple of 8): sums x, and of the other half of n.
  CUL_DEVICE_FN void finish(int64_t expert, int64_t row, int64_t column, const float* x, const float* up) const {
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (column + i >= c.n) {
        y[i] = 0;
        continue;
      }
      const float sum = x[i] + bias_at(expert, column + i);
      y[i] = act == GroupedAct::none ? sum : activated(sum, up[i] + bias_at(expert, column + i + c.n));
    }
    store_columns(c, row, column, c.n, y);
  }
};

inline GroupedEpilogue grouped_epilogue(const GroupedGemmParams& p) {
  const int64_t element = static_cast<int64_t>(size_of(p.out_dtype));
  GroupedEpilogue e{};
  e.c = {p.c, p.ldc, p.rows, p.columns(), nullptr, p.out_dtype, Activation::none, p.ldc * element % 16 == 0 || p.rows == 1};
  e.bias = p.bias;
  e.bias_stride = p.bias_stride;
  e.bias_dtype = p.bias_dtype;
  e.act = p.act;
  e.alpha = p.alpha;
  e.limit = p.limit;
  return e;
}

}  // namespace culebra::CUL_DEVICE_NS

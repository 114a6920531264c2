// gated_rms_norm: its plan and its columns.
#pragma once
#include "abi/op.h"
#include "culebra/linear_attention.h"

namespace culebra {

struct GatedRmsNormParams {
  // Three dimensions of rows with leading ones: what the dimensions before the last come to.
  struct Rows {
    void* data = nullptr;
    int64_t stride[3] = {};
  };

  DType dtype = DType::f32;
  DType weight_dtype = DType::f32;
  int64_t shape[3] = {1, 1, 1};
  int64_t dim = 0, groups = 1;
  Rows x, gate, y;  // gate.data is null where absent
  const void* weight = nullptr;
  float eps = 0;
  bool sigmoid = false;  // else silu
  bool norm_before_gate = true;

  int64_t rows() const { return shape[0] * shape[1] * shape[2]; }
  int64_t offset(const Rows& r, int64_t row) const {
    return row / (shape[1] * shape[2]) * r.stride[0] + row / shape[2] % shape[1] * r.stride[1] +
           row % shape[2] * r.stride[2];
  }
};

GatedRmsNormParams check_gated_rms_norm(const Call& call, const cul_gated_rms_norm_args& args);
CUL_DECLARE_COLUMNS(gated_rms_norm, GatedRmsNormParams)

}  // namespace culebra

// Row normalisation: rms_norm and layer_norm.
#pragma once
#include "culebra/glue.h"
#include "ops/glue/rows.h"

namespace culebra {

struct RmsNormParams {
  DType dtype;
  int64_t rows, columns;
  bool aligned;  // every row begins at a multiple of 16 bytes
  Rows x, residual, y, residual_out;
  const void* weight;
  float eps;
  bool zero_centered;
};

struct LayerNormParams {
  DType dtype;
  int64_t rows, columns;
  bool aligned;
  Rows x, y;
  const void* weight;
  const void* bias;  // null where absent
  float eps;
};

RmsNormParams check_rms_norm(const Call& call, const cul_rms_norm_args& args);
LayerNormParams check_layer_norm(const Call& call, const cul_layer_norm_args& args);

CUL_DECLARE_COLUMNS(rms_norm, RmsNormParams)
CUL_DECLARE_COLUMNS(layer_norm, LayerNormParams)

}  // namespace culebra

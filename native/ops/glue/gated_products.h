// y = value * activation(gate): silu_mul, gelu_mul, sigmoid_mul.
#pragma once
#include "culebra/glue.h"
#include "ops/glue/rows.h"

namespace culebra {

enum class Activation : uint8_t { silu, gelu_erf, gelu_tanh, sigmoid };

struct GatedProductParams {
  DType dtype;
  Activation activation;
  int64_t rows, columns;
  bool aligned;        // every row begins at a multiple of 16 bytes
  bool gate_per_row;   // gate has one element a row
  Rows gate, value, y;
};

GatedProductParams check_silu_mul(const Call& call, const cul_silu_mul_args& args);
GatedProductParams check_gelu_mul(const Call& call, const cul_gelu_mul_args& args);
GatedProductParams check_sigmoid_mul(const Call& call, const cul_sigmoid_mul_args& args);

CUL_DECLARE_COLUMNS(gated_product, GatedProductParams)

}  // namespace culebra

#include "ops/glue/gated_products.h"

namespace culebra {
namespace {

GatedProductParams check(const Call& call, const View& gate, const View& value, const View& y, Activation activation) {
  call.rank(value, 2, "[T,I]");
  call.rank(gate, 2, "[T,I]");
  call.rank(y, 2, "[T,I]");
  call.dtype(value, {DType::f32, DType::f16, DType::bf16});
  call.same_dtype(gate, value);
  call.same_dtype(y, value);
  const bool gate_per_row = activation == Activation::sigmoid && gate[1] == 1 && value[1] != 1;
  if (gate_per_row) {
    if (gate[0] != value[0])
      call.refuse(CUL_SHAPE, "gate is %s but %s is %s; it must be [T,I] or [T,1]", shape_text(gate).c_str(), value.name,
                  shape_text(value).c_str());
  } else {
    call.same_shape(gate, value);
  }
  call.same_shape(y, value);
  call.distinct(y);
  call.disjoint(y, gate, activation != Activation::sigmoid);
  call.disjoint(y, value, true);

  GatedProductParams p{value.dtype, activation, value[0], value[1], glue::aligned_rows({&value, &y}), gate_per_row,
                       glue::rows_of(gate), glue::rows_of(value), glue::rows_of(y)};
  if (!gate_per_row) {
    p.aligned = p.aligned && glue::aligned_rows({&gate});
    // Compact operands are one long row.
    if (p.gate.stride == p.columns && p.value.stride == p.columns && p.y.stride == p.columns) {
      p.columns *= p.rows;
      p.rows = p.rows > 0 ? 1 : 0;
      p.aligned = true;
    }
  }
  return p;
}

}  // namespace

GatedProductParams check_silu_mul(const Call& call, const cul_silu_mul_args& args) {
  const View gate = call.required(args.gate, "gate"), up = call.required(args.up, "up"), y = call.required(args.y, "y");
  return check(call, gate, up, y, Activation::silu);
}

GatedProductParams check_gelu_mul(const Call& call, const cul_gelu_mul_args& args) {
  const View gate = call.required(args.gate, "gate"), up = call.required(args.up, "up"), y = call.required(args.y, "y");
  call.one_of(args.form, {CUL_GELU_ERF, CUL_GELU_TANH}, "form");
  return check(call, gate, up, y, args.form == CUL_GELU_ERF ? Activation::gelu_erf : Activation::gelu_tanh);
}

GatedProductParams check_sigmoid_mul(const Call& call, const cul_sigmoid_mul_args& args) {
  const View x = call.required(args.x, "x"), gate = call.required(args.gate, "gate"), y = call.required(args.y, "y");
  return check(call, gate, x, y, Activation::sigmoid);
}

}  // namespace culebra

#include "ops/glue/norms.h"

#include <cmath>

namespace culebra {
namespace {

void check_eps(const Call& call, float eps) {
  if (!(eps >= 0) || std::isinf(eps)) call.refuse(CUL_RANGE, "eps is %g; it must be finite and at least 0", eps);
}

void check_row(const Call& call, const View& row, const View& x) {
  if (!row) return;
  call.rank(row, 1, "[D]");
  call.same_dtype(row, x);
  if (row[0] != x[1])
    call.refuse(CUL_SHAPE, "%s is %s but x is %s; %s must be [D], D being x's last dimension", row.name,
                shape_text(row).c_str(), shape_text(x).c_str(), row.name);
}

// Another [T,D] operand of x's dtype.
void check_matrix(const Call& call, const View& v, const View& x) {
  if (!v) return;
  call.rank(v, 2, "[T,D]");
  call.same_dtype(v, x);
  call.same_shape(v, x);
}

}  // namespace

RmsNormParams check_rms_norm(const Call& call, const cul_rms_norm_args& args) {
  const View x = call.required(args.x, "x"), weight = call.required(args.weight, "weight"),
             residual = call.optional(args.residual, "residual"), y = call.required(args.y, "y"),
             residual_out = call.optional(args.residual_out, "residual_out");
  if (residual_out && !residual) call.refuse(CUL_NULL_POINTER, "residual_out is given, so residual is required");
  call.rank(x, 2, "[T,D]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  check_row(call, weight, x);
  for (const View* v : {&residual, &y, &residual_out}) check_matrix(call, *v, x);
  check_eps(call, args.eps);
  call.flag(args.zero_centered, "zero_centered");
  for (const View* out : {&y, &residual_out}) {
    if (!*out) continue;
    call.distinct(*out);
    call.disjoint(*out, x, true);
    call.disjoint(*out, residual, out == &residual_out);
    call.disjoint(*out, weight);
  }
  call.disjoint(y, residual_out);
  return {x.dtype, x[0], x[1], glue::aligned_rows({&x, &residual, &y, &residual_out}), glue::rows_of(x),
          glue::rows_of(residual), glue::rows_of(y), glue::rows_of(residual_out), weight.data, args.eps,
          args.zero_centered == 1};
}

LayerNormParams check_layer_norm(const Call& call, const cul_layer_norm_args& args) {
  const View x = call.required(args.x, "x"), weight = call.required(args.weight, "weight"),
             bias = call.optional(args.bias, "bias"), y = call.required(args.y, "y");
  call.rank(x, 2, "[T,D]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  check_row(call, weight, x);
  check_row(call, bias, x);
  check_matrix(call, y, x);
  check_eps(call, args.eps);
  call.distinct(y);
  call.disjoint(y, x, true);
  call.disjoint(y, weight);
  call.disjoint(y, bias);
  return {x.dtype, x[0], x[1], glue::aligned_rows({&x, &y}), glue::rows_of(x), glue::rows_of(y), weight.data, bias.data,
          args.eps};
}

}  // namespace culebra

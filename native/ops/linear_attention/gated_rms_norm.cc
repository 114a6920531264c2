#include "ops/linear_attention/gated_rms_norm.h"

#include <cmath>


namespace culebra {

GatedRmsNormParams check_gated_rms_norm(const Call& call, const cul_gated_rms_norm_args& args) {
  const View x = call.required(args.x, "x"), gate = call.optional(args.gate, "gate");
  const View weight = call.required(args.weight, "weight"), y = call.required(args.y, "y");
  if (x.rank < 2 || x.rank > 4)
    call.refuse(CUL_SHAPE, "x is %s; it must be [...,D] of rank 2 to 4", shape_text(x).c_str());
  call.rank(weight, 1, "[D]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  if (gate) call.same_dtype(gate, x);
  call.dtype(weight, {x.dtype, DType::f32});
  call.same_dtype(y, x);
  const int64_t dim = x[x.rank - 1];
  if (gate) call.same_shape(gate, x);
  call.shape(weight, {dim}, "[D], D = x's last dimension");
  call.same_shape(y, x);
  if (!(args.eps >= 0) || !std::isfinite(args.eps)) call.refuse(CUL_RANGE, "eps is %g; it must be 0 or more", args.eps);
  call.one_of(args.act, {CUL_GATE_ACT_SILU, CUL_GATE_ACT_SIGMOID}, "act");
  call.flag(args.norm_before_gate, "norm_before_gate");
  if (args.groups < 1) call.refuse(CUL_RANGE, "groups is %d; it must be 1 or more", args.groups);
  if (dim % args.groups)
    call.refuse(CUL_SHAPE, "x is %s; its last dimension must be a multiple of groups = %d", shape_text(x).c_str(),
                args.groups);
  call.distinct(y);
  call.disjoint(y, x, true);
  call.disjoint(y, gate, true);
  call.disjoint(y, weight);

  GatedRmsNormParams p;
  p.dtype = x.dtype;
  p.weight_dtype = weight.dtype;
  p.dim = dim;
  p.groups = args.groups;
  auto rows = [&](const View& v) {
    GatedRmsNormParams::Rows r{v.data, {}};
    for (int i = 0; i + 1 < v.rank; ++i) r.stride[4 - v.rank + i] = v.stride_of(i);
    return r;
  };
  for (int i = 0; i + 1 < x.rank; ++i) p.shape[4 - x.rank + i] = x[i];
  p.x = rows(x);
  if (gate) p.gate = rows(gate);
  p.y = rows(y);
  p.weight = weight.data;
  p.eps = args.eps;
  p.sigmoid = args.act == CUL_GATE_ACT_SIGMOID;
  p.norm_before_gate = args.norm_before_gate;
  return p;
}

}  // namespace culebra

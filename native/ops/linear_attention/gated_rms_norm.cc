#include "ops/linear_attention/gated_rms_norm.h"

#include <cmath>


namespace culebra {
namespace {

// The dimensions before the last, last first. Those that lie in all tensors as one dimension would are one: three can be left.
void merge_dimensions(const Call& call, const View& x, const View& gate, const View& y, GatedRmsNormParams& p) {
  const View* const views[] = {&x, &gate, &y};
  GatedRmsNormParams::Rows* const rows[] = {&p.x, &p.gate, &p.y};
  for (int i = 0; i < 3; ++i) rows[i]->data = views[i]->data;
  int at = 3;
  for (int d = x.rank - 2; d >= 0; --d) {
    if (x[d] == 1) continue;
    bool merged = at < 3;
    for (int i = 0; merged && i < 3; ++i)
      if (*views[i] && views[i]->stride_of(d) != rows[i]->stride[at] * p.shape[at]) merged = false;
    if (merged) {
      p.shape[at] *= x[d];
      continue;
    }
    if (--at < 0)
      call.refuse(CUL_STRIDE, "x is %s; with these strides of x, gate and y its rows lie in more than three dimensions",
                  shape_text(x).c_str());
    p.shape[at] = x[d];
    for (int i = 0; i < 3; ++i)
      if (*views[i]) rows[i]->stride[at] = views[i]->stride_of(d);
  }
}

}  // namespace

GatedRmsNormParams check_gated_rms_norm(const Call& call, const cul_gated_rms_norm_args& args) {
  const View x = call.required(args.x, "x"), gate = call.optional(args.gate, "gate");
  const View weight = call.required(args.weight, "weight"), y = call.required(args.y, "y");
  if (x.rank < 1) call.refuse(CUL_SHAPE, "x is %s; it must be [...,D]", shape_text(x).c_str());
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
  merge_dimensions(call, x, gate, y, p);
  p.weight = weight.data;
  p.eps = args.eps;
  p.sigmoid = args.act == CUL_GATE_ACT_SIGMOID;
  p.norm_before_gate = args.norm_before_gate;
  return p;
}

}  // namespace culebra

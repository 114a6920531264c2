#include "ops/attention/merge_states.h"

namespace culebra {

MergeStatesParams check_merge_states(const Call& call, const cul_merge_states_args& args) {
  const View o = call.required(args.o, "o"), lse = call.required(args.lse, "lse");
  const View merged_o = call.required(args.merged_o, "merged_o"), merged_lse = call.optional(args.merged_lse, "merged_lse");
  call.rank(o, 4, "[n,T,H,D]");
  call.dtype(o, {DType::f16, DType::bf16, DType::f32});
  call.dtype(lse, {DType::f32});
  call.same_dtype(merged_o, o);
  if (merged_lse) call.dtype(merged_lse, {DType::f32});
  call.shape(lse, {o[0], o[1], o[2]}, "[n,T,H], as o");
  call.shape(merged_o, {o[1], o[2], o[3]}, "[T,H,D], as o");
  if (merged_lse) call.shape(merged_lse, {o[1], o[2]}, "[T,H], as o");
  for (const View* out : {&merged_o, &merged_lse})
    if (*out) call.distinct(*out);
  for (const View* out : {&merged_o, &merged_lse})
    for (const View* in : {&o, &lse}) call.disjoint(*out, *in);
  call.disjoint(merged_lse, merged_o);

  MergeStatesParams p;
  p.dtype = o.dtype;
  p.states = o[0];
  p.tokens = o[1];
  p.heads = o[2];
  p.dim = o[3];
  p.o = {o.data, o.stride_of(0), o.stride_of(1), o.stride_of(2)};
  p.lse = {lse.data, lse.stride_of(0), lse.stride_of(1), lse.stride_of(2)};
  p.merged_o = {merged_o.data, 0, merged_o.stride_of(0), merged_o.stride_of(1)};
  if (merged_lse) p.merged_lse = {merged_lse.data, 0, merged_lse.stride_of(0), merged_lse.stride_of(1)};
  p.aligned = p.dim % 8 == 0;
  for (const MergeStatesParams::Rows* x : {&p.o, &p.merged_o})
    p.aligned = p.aligned && x->state % 8 == 0 && x->row % 8 == 0 && x->head % 8 == 0;
  return p;
}

}  // namespace culebra

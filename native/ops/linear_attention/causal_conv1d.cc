#include "ops/linear_attention/causal_conv1d.h"

#include "culebra/gemm.h"

namespace culebra {

CausalConv1dParams check_causal_conv1d(const Call& call, const cul_causal_conv1d_args& args) {
  const View x = call.required(args.x, "x"), w = call.required(args.w, "w"), bias = call.optional(args.bias, "bias");
  const View state = call.optional(args.state, "state"), cu_seqlens = call.optional(args.cu_seqlens, "cu_seqlens");
  const View read_index = call.optional(args.state_read_index, "state_read_index");
  const View write_index = call.optional(args.state_write_index, "state_write_index");
  const View y = call.required(args.y, "y"), final = call.optional(args.final_state, "final_state");

  call.rank(x, 3, "[B,T,C]");
  call.rank(w, 2, "[C,W]");
  for (const View* s : {&state, &final})
    if (*s) call.rank(*s, 3, "[N,C,W-1]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  for (const View* other : {&w, &bias, &state, &y, &final})
    if (*other) call.same_dtype(*other, x);

  const int64_t C = x[2], W = w[1];
  if (W < 2 || W > CausalConv1dParams::kMaxWidth)
    call.refuse(CUL_SHAPE, "w is %s; its width W must be 2, 3 or 4", shape_text(w).c_str());
  call.shape(w, {C, W}, "[C,W]");
  if (bias) call.shape(bias, {C}, "[C]");
  call.same_shape(y, x);
  for (const View* s : {&state, &final})
    if (*s) call.shape(*s, {-1, C, W - 1}, "[N,C,W-1]");

  CausalConv1dParams p;
  p.sequences = check_sequences(call, x[0], x[1], cu_seqlens, read_index, write_index, state, final);
  call.one_of(args.act, {CUL_ACT_NONE, CUL_ACT_SILU}, "act");

  for (const View* out : {&y, &final})
    if (*out) call.distinct(*out);
  for (const View* out : {&y, &final})
    for (const View* in : {&x, &w, &bias, &cu_seqlens, &read_index, &write_index}) call.disjoint(*out, *in);
  call.disjoint(y, state);
  call.disjoint(final, state, true);
  call.disjoint(final, y);

  p.dtype = x.dtype;
  p.channels = C;
  p.width = W;
  p.x = {x.data, x.stride_of(0), x.stride_of(1)};
  p.y = {y.data, y.stride_of(0), y.stride_of(1)};
  p.w = w.data;
  p.w_stride = w.stride_of(0);
  p.bias = bias.data;
  if (state) p.state = {state.data, state.stride_of(0), state.stride_of(1)};
  if (final) p.final = {final.data, final.stride_of(0), final.stride_of(1)};
  p.silu = args.act == CUL_ACT_SILU;
  p.validate = call.validate();
  return p;
}

}  // namespace culebra

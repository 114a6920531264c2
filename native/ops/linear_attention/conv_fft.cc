#include "ops/linear_attention/conv_fft.h"

namespace culebra {

ConvFftParams check_conv_fft(const Call& call, const cul_conv_fft_args& args) {
  const View x = call.required(args.x, "x"), filter = call.required(args.filter, "filter"), skip = call.optional(args.skip, "skip");
  const View y = call.required(args.y, "y");
  call.rank(x, 3, "[B,T,C]");
  call.rank(filter, 2, "[C,L]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  call.dtype(filter, {DType::f32});
  if (skip) call.dtype(skip, {DType::f32, x.dtype});
  call.same_dtype(y, x);
  const int64_t B = x[0], T = x[1], C = x[2], L = filter[1];
  call.shape(filter, {C, -1}, "[C,L], C = x's last dimension");
  if (T > 0 && L > T)
    call.refuse(CUL_SHAPE, "filter is %s but x is %s; a filter may have no more taps than x has tokens", shape_text(filter).c_str(),
                shape_text(x).c_str());
  if (skip) call.shape(skip, {C}, "[C], C = x's last dimension");
  call.same_shape(y, x);
  call.distinct(y);
  for (const View* in : {&x, &filter, &skip}) call.disjoint(y, *in);

  ConvFftParams p;
  p.dtype = x.dtype;
  p.skip_is_f32 = skip && skip.dtype == DType::f32;
  p.batch = B;
  p.tokens = T;
  p.channels = C;
  p.taps = L;
  p.x = {x.data, x.stride_of(0), x.stride_of(1)};
  p.y = {y.data, y.stride_of(0), y.stride_of(1)};
  p.filter = filter.as<float>();
  p.filter_stride = filter.stride_of(0);
  p.skip = skip.data;
  std::string reason;
  p.plan = plan_conv_fft(B, T, C, L, conv_fft_limits(call.caps(), x.dtype), &reason);
  const int64_t copies = 2 * p.plan.copy_elems(T) * static_cast<int64_t>(size_of(x.dtype));
  p.workspace = call.workspace(static_cast<uint64_t>((p.plan.filter_points() + p.plan.input_points()) * 2 * int64_t{sizeof(float)} + copies));
  if (call.plan_only()) call.explain("conv_fft: " + reason);
  return p;
}

}  // namespace culebra

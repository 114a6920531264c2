#include "ops/gemm/packing/quantize_weights.h"

namespace culebra {

QuantizeWeightsParams check_quantize_weights(const Call& call, const cul_quantize_weights_args& args) {
  const View w = call.required(args.w, "w"), q = call.required(args.q, "q"), scales = call.required(args.scales, "scales"),
             zeros = call.optional(args.zeros, "zeros");
  call.flag(args.symmetric, "symmetric");
  if (!args.symmetric && !zeros) call.refuse(CUL_NULL_POINTER, "zeros is required where symmetric is 0");
  if (args.symmetric && zeros) call.refuse(CUL_UNSUPPORTED, "zeros is given, but symmetric weights have none to store");
  call.rank(w, 2, "[N,K]");
  call.dtype(w, {DType::f32, DType::f16, DType::bf16});
  call.dtype(q, {DType::u8});
  call.dtype(scales, {DType::f32, DType::f16, DType::bf16});
  if (zeros) call.dtype(zeros, {DType::u8});
  call.one_of(args.bits, {4, 6, 8}, "bits");
  call.one_of(args.group, {-1, 32, 64, 128}, "group");

  QuantizeWeightsParams p{};
  p.n = w[0];
  p.k = w[1];
  p.group = args.group == -1 ? p.k : args.group;
  p.groups = args.group == -1 ? 1 : (p.k + p.group - 1) / p.group;
  call.shape(q, {p.n, p.k}, "[N,K]");
  call.shape(scales, {p.n, p.groups}, "[N,G]");
  if (zeros) call.shape(zeros, {p.n, p.groups}, "[N,G]");
  for (const View* out : {&q, &scales, &zeros}) {
    call.distinct(*out);
    call.disjoint(*out, w);
  }
  call.disjoint(scales, q);
  call.disjoint(zeros, q);
  call.disjoint(zeros, scales);
  call.workspace(0);

  p.w = w.data;
  p.w_stride = w.stride_of(0);
  p.q = q.as<uint8_t>();
  p.q_stride = q.stride_of(0);
  p.scales = scales.data;
  p.scales_stride = scales.stride_of(0);
  p.zeros = zeros.as<uint8_t>();
  p.zeros_stride = zeros ? zeros.stride_of(0) : 0;
  p.bits = args.bits;
  p.w_dtype = w.dtype;
  p.scale_dtype = scales.dtype;
  return p;
}

}  // namespace culebra

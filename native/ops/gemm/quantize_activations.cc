#include "ops/gemm/quantize_activations.h"

#include "backends/backend.h"

namespace culebra {

QuantizeActivationsParams check_quantize_activations(const Call& call, const cul_quantize_activations_args& args) {
  call.one_of(args.mode, {CUL_QUANTIZE_PER_TOKEN, CUL_QUANTIZE_PER_BLOCK128, CUL_QUANTIZE_STATIC}, "mode");
  const bool given = args.mode == CUL_QUANTIZE_STATIC;
  const View x = call.required(args.x, "x"), q = call.required(args.q, "q"), scale = call.optional(args.scale, "scale"),
             scales = call.optional(args.scales, "scales");
  if (given && !scale) call.refuse(CUL_NULL_POINTER, "scale is required with mode static");
  if (!given && !scales) call.refuse(CUL_NULL_POINTER, "scales is required: the mode is not static");
  if (given ? scales.present : scale.present)
    call.refuse(CUL_UNSUPPORTED, "%s is given, but mode %s", given ? "scales" : "scale",
                given ? "static computes none" : "per_token and per_block128 compute their own");
  call.rank(x, 2, "[M,K]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  call.dtype(q, {DType::i8, DType::f8e4m3});
  call.shape(q, {x[0], x[1]}, "[M,K]");

  QuantizeActivationsParams p{};
  p.m = x[0];
  p.k = x[1];
  p.block = args.mode == CUL_QUANTIZE_PER_BLOCK128 ? quantize::kActivationBlock : p.k;
  p.blocks = args.mode == CUL_QUANTIZE_PER_BLOCK128 ? (p.k + p.block - 1) / p.block : 1;
  if (given) {
    call.dtype(scale, {DType::f32});
    call.shape(scale, {1}, "[1]");
  } else {
    call.dtype(scales, {DType::f32});
    call.shape(scales, {p.m, p.blocks}, args.mode == CUL_QUANTIZE_PER_TOKEN ? "[M,1]" : "[M,ceil(K/128)]");
    call.distinct(scales);
  }
  call.distinct(q);
  for (const View* in : {&x, &scale}) {
    call.disjoint(q, *in);
    call.disjoint(scales, *in);
  }
  call.disjoint(scales, q);
  call.workspace(0);

  p.x = x.data;
  p.ldx = x.stride_of(0);
  p.q = q.data;
  p.ldq = q.stride_of(0);
  p.scales = scales.as<float>();
  p.lds = scales ? scales.stride_of(0) : 0;
  p.scale = scale.as<const float>();
  p.dtype = x.dtype;
  p.f8 = q.dtype == DType::f8e4m3;
  return p;
}

}  // namespace culebra

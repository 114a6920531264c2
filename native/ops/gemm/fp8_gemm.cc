#include "ops/gemm/fp8_gemm.h"

#include "backends/backend.h"
#include "ops/gemm/f8_rows.h"

namespace culebra {

Fp8GemmParams check_fp8_gemm(const Call& call, const cul_fp8_gemm_args& args) {
  const View a = call.required(args.a, "a"), b = call.required(args.b, "b"), a_scale = call.required(args.a_scale, "a_scale"),
             b_scale = call.required(args.b_scale, "b_scale"), bias = call.optional(args.bias, "bias"), c = call.required(args.c, "c");
  call.one_of(args.scaling, {CUL_FP8_SCALING_TENSOR, CUL_FP8_SCALING_TOKEN_CHANNEL, CUL_FP8_SCALING_BLOCK128}, "scaling");
  call.rank(a, 2, "[M,K]");
  call.rank(b, 2, "[N,K]");
  call.rank(c, 2, "[M,N]");
  for (const View* operand : {&a, &b}) call.dtype(*operand, {DType::f8e4m3});
  for (const View* scale : {&a_scale, &b_scale}) call.dtype(*scale, {DType::f32});
  call.dtype(c, {DType::f16, DType::bf16, DType::f32});
  if (a[1] != b[1])
    call.refuse(CUL_SHAPE, "a is %s but b is %s; their last dimensions must be equal", shape_text(a).c_str(), shape_text(b).c_str());
  if (a[1] % 16) call.refuse(CUL_SHAPE, "a is %s: K = %lld must be a multiple of 16", shape_text(a).c_str(), static_cast<long long>(a[1]));
  call.shape(c, {a[0], b[0]}, "[M,N]");
  if (bias) {
    call.same_dtype(bias, c);
    call.shape(bias, {b[0]}, "[N]");
  }
  const auto blocks = [](int64_t extent) { return (extent + kFp8Block - 1) / kFp8Block; };
  switch (args.scaling) {
    case CUL_FP8_SCALING_TENSOR:
      call.shape(a_scale, {1}, "[1]");
      call.shape(b_scale, {1}, "[1]");
      break;
    case CUL_FP8_SCALING_TOKEN_CHANNEL:
      call.shape(a_scale, {a[0], 1}, "[M,1]");
      call.shape(b_scale, {b[0], 1}, "[N,1]");
      break;
    default:
      call.shape(a_scale, {a[0], blocks(a[1])}, "[M,ceil(K/128)]");
      call.shape(b_scale, {blocks(b[0]), blocks(a[1])}, "[ceil(N/128),ceil(K/128)]");
  }
  call.distinct(c);
  for (const View* in : {&a, &b, &a_scale, &b_scale, &bias}) call.disjoint(c, *in);

  Fp8GemmParams p{};
  p.a = a.as<const uint8_t>();
  p.lda = a.stride_of(0);
  p.b = b.as<const uint8_t>();
  p.ldb = b.stride_of(0);
  p.a_scale = a_scale.as<const float>();
  p.b_scale = b_scale.as<const float>();
  if (args.scaling != CUL_FP8_SCALING_TENSOR) {
    p.a_scale_row = a_scale.stride_of(0);
    p.b_scale_row = b_scale.stride_of(0);
  }
  p.scaling = args.scaling;
  p.bias = bias.data;
  p.c = c.data;
  p.ldc = c.stride_of(0);
  p.m = a[0];
  p.n = b[0];
  p.k = a[1];
  p.dtype = c.dtype;
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::f8_rows_workspace(p.m, p.k).bytes);
    return p;
  }
  require_wgmma(call);
  std::string reason;
  p.plan = plan_fp8_gemm(p, call.batch_invariant(), call.caps(), &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

}  // namespace culebra

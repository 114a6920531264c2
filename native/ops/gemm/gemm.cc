#include "ops/gemm/gemm.h"

#include "backends/backend.h"
#include "ops/gemm/gemm_cpu.h"

namespace culebra {

GemmParams check_gemm(const Call& call, const cul_gemm_args& args) {
  const View a = call.required(args.a, "a"), b = call.required(args.b, "b"), bias = call.optional(args.bias, "bias"),
             c = call.required(args.c, "c");
  call.rank(a, 2, "[M,K]");
  call.rank(b, 2, "[N,K]");
  call.rank(c, 2, "[M,N]");
  call.dtype(a, {DType::f32, DType::f16, DType::bf16});
  call.same_dtype(b, a);
  call.dtype(c, {DType::f32, DType::f16, DType::bf16});
  if (a[1] != b[1])
    call.refuse(CUL_SHAPE, "a is %s but b is %s; their last dimensions must be equal", shape_text(a).c_str(),
                shape_text(b).c_str());
  call.shape(c, {a[0], b[0]}, "[M,N]");
  if (bias) {
    call.same_dtype(bias, a);
    call.shape(bias, {b[0]}, "[N]");
  }
  call.one_of(args.act, {CUL_ACT_NONE, CUL_ACT_SILU, CUL_ACT_GELU}, "act");
  for (const View* in : {&a, &b, &bias}) call.disjoint(c, *in);

  GemmParams p{};
  p.a = a.data;
  p.lda = a.stride_of(0);
  p.b = b.data;
  p.ldb = b.stride_of(0);
  p.bias = bias.data;
  p.c = c.data;
  p.ldc = c.stride_of(0);
  p.m = a[0];
  p.n = b[0];
  p.k = a[1];
  p.dtype = a.dtype;
  p.out_dtype = c.dtype;
  p.act = args.act;
  p.batch_invariant = call.batch_invariant();
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::gemm_workspace(p.m, p.k).bytes);
    return p;
  }
  std::string reason;
  p.plan = plan_gemm(p, call.caps(), &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

}  // namespace culebra

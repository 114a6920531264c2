#include "ops/gemm/gemm.h"

#include "backends/backend.h"
#include "ops/gemm/gemm_cpu.h"
#if CULEBRA_HAS_CUDA
#include <algorithm>

#include "backends/cuda/cublaslt.h"
#endif

namespace culebra {
#if CULEBRA_HAS_CUDA
namespace {

cuda::LibraryProduct library_product(const GemmParams& p) {
  using Type = cuda::LibraryProduct::Type;
  const auto type = [](DType t) { return t == DType::f32 ? Type::f32 : t == DType::f16 ? Type::f16 : Type::bf16; };
  return {p.m, p.n, p.k, p.lda, p.ldb, p.ldc, type(p.dtype), type(p.out_dtype), p.bias != nullptr};
}

// Gives the call to cuBLASLt where that is present and knows how; reason tells.
void offer_to_library(GemmParams& p, const DeviceCaps& caps, std::string* reason) {
  std::string obstacle;
  cuda::LibraryAlgorithm algorithm;
  if (const char* const why = not_for_library(p))
    obstacle = why;
  else if (cuda::CublasLt* const library = cuda::cublaslt(caps.id.index, &obstacle))
    obstacle = library->choose(library_product(p), &algorithm) ? "" : "it has no algorithm for these types and strides";
  if (!obstacle.empty()) {
    *reason += "; not cuBLASLt: " + obstacle;
    return;
  }
  *reason = "cuBLASLt, by its own choice of algorithm";
  p.plan = {};
  p.plan.design = GemmDesign::library;
  p.plan.device = caps.id.index;
  p.plan.workspace_bytes = algorithm.workspace_bytes;
  std::copy(std::begin(algorithm.data), std::end(algorithm.data), p.plan.algorithm);
}

}  // namespace

void cuda::library_gemm(const GemmParams& p, CUstream_st* stream) {
  std::string reason;
  cuda::LibraryAlgorithm algorithm;
  std::copy(std::begin(p.plan.algorithm), std::end(p.plan.algorithm), algorithm.data);
  algorithm.workspace_bytes = p.plan.workspace_bytes;
  cuda::cublaslt(p.plan.device, &reason)->multiply(library_product(p), algorithm, p.a, p.b, p.bias, p.c, p.workspace, stream);
}
#endif

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
  call.distinct(c);
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
#if CULEBRA_HAS_CUDA
  if (call.caps().backend == CUL_BACKEND_CUDA) offer_to_library(p, call.caps(), &reason);
#endif
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

}  // namespace culebra

#include "ops/gemm/w4a16_gemm.h"

#include "backends/backend.h"
#include "ops/gemm/w4a16_gemm_cpu.h"

namespace culebra {

W4A16GemmParams check_w4a16_gemm(const Call& call, const cul_w4a16_gemm_args& x) {
  W4A16GemmParams p{check_packed_product(call, {4}, {x.a, nullptr, x.packed, x.packed_scales, x.packed_zeros, x.perm, x.bias, x.c, x.n, x.k,
                                                     x.packed_group, x.epilogue}),
                    {}};
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::w4a16_gemm_workspace(p.m, p.k_padded, p.group).bytes);
    return p;
  }
  std::string reason;
  p.plan = plan_w4a16_gemm(p, call.caps(), &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

}  // namespace culebra

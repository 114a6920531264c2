#include "culebra/moe.h"

#include "abi/registry.h"
#include "ops/moe/grouped_gemm.h"
#include "ops/moe/moe_align.h"
#include "ops/moe/moe_combine.h"
#include "ops/moe/moe_dispatch.h"
#include "ops/moe/moe_mlp.h"
#include "ops/moe/moe_permute.h"
#include "ops/moe/moe_route.h"

namespace culebra {

static constexpr Op<MoeRouteParams> kMoeRoute{"moe_route", "moe", "f32 f16 bf16", cpu::moe_route, CUL_CUDA(moe_route),
    CUL_SIMT(moe_route)};
static constexpr Op<MoeAlignParams> kMoeAlign{"moe_align", "moe", "i32", cpu::moe_align, CUL_CUDA(moe_align),
    CUL_SIMT(moe_align)};
static constexpr Op<MoePermuteParams> kMoePermute{"moe_permute", "moe", "f32 f16 bf16 f8e4m3", cpu::moe_permute, CUL_CUDA(moe_permute),
    CUL_SIMT(moe_permute)};
static constexpr Op<MoeCombineParams> kMoeCombine{"moe_combine", "moe", "f32 f16 bf16", cpu::moe_combine, CUL_CUDA(moe_combine),
    CUL_SIMT(moe_combine)};
static constexpr Op<MoeDispatchParams> kMoeDispatch{"moe_dispatch", "moe", "f32 f16 bf16 f8e4m3", cpu::moe_dispatch,
    CUL_CUDA(moe_dispatch), CUL_SIMT(moe_dispatch)};
static constexpr Op<MoeMlpParams> kMoeMlp{"moe_mlp", "moe", "f16 bf16", cpu::moe_mlp, CUL_CUDA(moe_mlp), CUL_SIMT(moe_mlp),
    CUL_KERNELS_80 | CUL_KERNELS_90};
static constexpr Op<GroupedGemmParams> kMoeGroupedGemm{"moe_grouped_gemm", "moe", "f16 bf16 f8e4m3", cpu::moe_grouped_gemm,
                                                             CUL_CUDA(moe_grouped_gemm), CUL_SIMT(moe_grouped_gemm),
                                                             CUL_KERNELS_80 | CUL_KERNELS_90};

static constexpr const OpRecord* kOps[] = {&kMoeRoute, &kMoeAlign, &kMoePermute, &kMoeCombine, &kMoeDispatch, &kMoeMlp, &kMoeGroupedGemm};
const OpList kMoeOps{kOps, static_cast<int>(std::size(kOps))};

}  // namespace culebra

using namespace culebra;

extern "C" {

cul_status cul_moe_route(cul_stream* stream, const cul_moe_route_args* args) {
  return run_op(kMoeRoute, stream, args, check_moe_route);
}
cul_status cul_moe_align(cul_stream* stream, const cul_moe_align_args* args) {
  return run_op(kMoeAlign, stream, args, check_moe_align);
}
cul_status cul_moe_permute(cul_stream* stream, const cul_moe_permute_args* args) {
  return run_op(kMoePermute, stream, args, check_moe_permute);
}
cul_status cul_moe_combine(cul_stream* stream, const cul_moe_combine_args* args) {
  return run_op(kMoeCombine, stream, args, check_moe_combine);
}
cul_status cul_moe_dispatch(cul_stream* stream, const cul_moe_dispatch_args* args) {
  return run_op(kMoeDispatch, stream, args, check_moe_dispatch);
}
cul_status cul_moe_mlp(cul_stream* stream, const cul_moe_mlp_args* args) {
  return run_op(kMoeMlp, stream, args, check_moe_mlp);
}
cul_status cul_moe_grouped_gemm(cul_stream* stream, const cul_moe_grouped_gemm_args* args) {
  return run_op(kMoeGroupedGemm, stream, args, check_moe_grouped_gemm);
}

}  // extern "C"

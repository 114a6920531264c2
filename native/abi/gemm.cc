// The exported functions of the matrix products and of packed weights, and their rows.
#include "culebra/gemm.h"

#include <algorithm>

#include "abi/registry.h"
#include "ops/gemm/fp8_gemm.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/linear_logprob.h"
#include "ops/gemm/packing/packed_weights.h"
#include "ops/gemm/quantize_activations.h"
#include "ops/gemm/packing/quantize_weights.h"
#include "ops/gemm/sparse_mlp.h"
#include "ops/gemm/quantized_gemm.h"
#include "ops/gemm/w4a16_gemm.h"
#include "ops/gemm/w4a8_gemm.h"

namespace culebra {
namespace {

constexpr Op<GemmParams> kGemm{"gemm", "gemm", "f32 f16 bf16", cpu::gemm, CUL_CUDA(gemm), CUL_SIMT(gemm), CUL_KERNELS_80 | CUL_KERNELS_90};
constexpr Op<PackParams> kPackWeights{"pack_weights", "gemm", "i32 u8 i8 f8e4m3", cpu::pack_weights, CUL_CUDA(pack_weights),
                                      CUL_SIMT(pack_weights)};
constexpr Op<UnpackParams> kUnpackWeights{"unpack_weights", "gemm", "u8 f8e4m3", cpu::unpack_weights, CUL_CUDA(unpack_weights),
                                          CUL_SIMT(unpack_weights)};
constexpr Op<QuantizeWeightsParams> kQuantizeWeights{"quantize_weights", "gemm", "f32 f16 bf16", cpu::quantize_weights,
                                                     CUL_CUDA(quantize_weights), CUL_SIMT(quantize_weights)};
constexpr Op<QuantizeActivationsParams> kQuantizeActivations{"quantize_activations", "gemm", "f32 f16 bf16", cpu::quantize_activations,
                                                             CUL_CUDA(quantize_activations), CUL_SIMT(quantize_activations)};
constexpr Op<Fp8GemmParams> kFp8Gemm{"fp8_gemm", "gemm", "f8e4m3", cpu::fp8_gemm, CUL_CUDA(fp8_gemm), CUL_SIMT(fp8_gemm), CUL_KERNELS_90};
constexpr Op<W4A16GemmParams> kW4A16Gemm{"w4a16_gemm", "gemm", "f16 bf16", cpu::w4a16_gemm, CUL_CUDA(w4a16_gemm),
                                         CUL_SIMT(w4a16_gemm), CUL_KERNELS_80 | CUL_KERNELS_90};
constexpr Op<LogprobParams> kLinearLogprob{"linear_logprob", "gemm", "f32 f16 bf16", cpu::linear_logprob, CUL_CUDA(linear_logprob),
                                           CUL_SIMT(linear_logprob), CUL_KERNELS_80 | CUL_KERNELS_90};
constexpr Op<SparseMlpParams> kSparseMlp{"sparse_mlp", "gemm", "f16 bf16", cpu::sparse_mlp, CUL_CUDA(sparse_mlp), CUL_SIMT(sparse_mlp)};
constexpr Op<W4A8GemmParams> kW4A8Gemm{"w4a8_gemm", "gemm", "f8e4m3", cpu::w4a8_gemm, CUL_CUDA(w4a8_gemm), CUL_SIMT(w4a8_gemm), CUL_KERNELS_90};

constexpr Op<QuantizedGemmParams> kW6A16Gemm{"w6a16_gemm", "gemm", "f16 bf16", cpu::w6a16_gemm, CUL_CUDA(w6a16_gemm),
                                             CUL_SIMT(w6a16_gemm)};
constexpr Op<QuantizedGemmParams> kW6A8Gemm{"w6a8_gemm", "gemm", "i8", cpu::w6a8_gemm, CUL_CUDA(w6a8_gemm), CUL_SIMT(w6a8_gemm)};
constexpr Op<QuantizedGemmParams> kW8A16Gemm{"w8a16_gemm", "gemm", "f16 bf16", cpu::w8a16_gemm, CUL_CUDA(w8a16_gemm),
                                             CUL_SIMT(w8a16_gemm)};
constexpr Op<QuantizedGemmParams> kW4A16Sparse24Gemm{"w4a16_sparse24_gemm", "gemm", "f16 bf16", cpu::w4a16_sparse24_gemm,
                                                     CUL_CUDA(w4a16_sparse24_gemm), CUL_SIMT(w4a16_sparse24_gemm)};

const OpRecord* const kOps[] = {
    &kFp8Gemm,
    &kGemm,
    &kLinearLogprob,
    &kPackWeights,
    &kQuantizeActivations,
    &kQuantizeWeights,
    &kSparseMlp,
    &kUnpackWeights,
    &kW4A16Gemm,
    &kW4A16Sparse24Gemm,
    &kW6A16Gemm,
    &kW6A8Gemm,
    &kW8A16Gemm,
    &kW4A8Gemm,
};

}  // namespace

const OpList kGemmOps{kOps, static_cast<int>(std::size(kOps))};

}  // namespace culebra

using namespace culebra;

extern "C" {

cul_status cul_gemm(cul_stream* stream, const cul_gemm_args* args) { return run_op(kGemm, stream, args, check_gemm); }

cul_status cul_pack_plan(cul_device* device, const cul_checkpoint* checkpoint, cul_pack_plan_result* out, int32_t* perm,
                         int32_t* group_source) {
  return fence([&] {
    if (!device) refuse(CUL_NULL_POINTER, "pack_plan: device is null");
    if (!out) refuse(CUL_NULL_POINTER, "pack_plan: out is null");
    if (out->struct_size != sizeof *out)
      refuse(CUL_RANGE, "pack_plan: out's struct_size is %u; this library's is %zu", out->struct_size, sizeof *out);
    const PackPlan plan = plan_packing(Device::from(device)->caps(), checkpoint);
    *out = plan.result;
    if (perm) std::copy(plan.perm.begin(), plan.perm.end(), perm);
    if (group_source) std::copy(plan.group_source.begin(), plan.group_source.end(), group_source);
  });
}

cul_status cul_pack_weights(cul_stream* stream, const cul_pack_weights_args* args) {
  return run_op(kPackWeights, stream, args, check_pack_weights);
}
cul_status cul_unpack_weights(cul_stream* stream, const cul_unpack_weights_args* args) {
  return run_op(kUnpackWeights, stream, args, check_unpack_weights);
}
cul_status cul_quantize_weights(cul_stream* stream, const cul_quantize_weights_args* args) {
  return run_op(kQuantizeWeights, stream, args, check_quantize_weights);
}
cul_status cul_quantize_activations(cul_stream* stream, const cul_quantize_activations_args* args) {
  return run_op(kQuantizeActivations, stream, args, check_quantize_activations);
}
cul_status cul_fp8_gemm(cul_stream* stream, const cul_fp8_gemm_args* args) { return run_op(kFp8Gemm, stream, args, check_fp8_gemm); }
cul_status cul_w4a16_gemm(cul_stream* stream, const cul_w4a16_gemm_args* args) {
  return run_op(kW4A16Gemm, stream, args, check_w4a16_gemm);
}
cul_status cul_w6a16_gemm(cul_stream* stream, const cul_w6a16_gemm_args* args) {
  return run_op(kW6A16Gemm, stream, args, check_w6a16_gemm);
}
cul_status cul_w6a8_gemm(cul_stream* stream, const cul_w6a8_gemm_args* args) {
  return run_op(kW6A8Gemm, stream, args, check_w6a8_gemm);
}
cul_status cul_w8a16_gemm(cul_stream* stream, const cul_w8a16_gemm_args* args) {
  return run_op(kW8A16Gemm, stream, args, check_w8a16_gemm);
}
cul_status cul_linear_logprob(cul_stream* stream, const cul_linear_logprob_args* args) {
  return run_op(kLinearLogprob, stream, args, check_linear_logprob);
}
cul_status cul_sparse_mlp(cul_stream* stream, const cul_sparse_mlp_args* args) {
  return run_op(kSparseMlp, stream, args, check_sparse_mlp);
}
cul_status cul_w4a16_sparse24_gemm(cul_stream* stream, const cul_w4a16_sparse24_gemm_args* args) {
  return run_op(kW4A16Sparse24Gemm, stream, args, check_w4a16_sparse24_gemm);
}
cul_status cul_w4a8_gemm(cul_stream* stream, const cul_w4a8_gemm_args* args) {
  return run_op(kW4A8Gemm, stream, args, check_w4a8_gemm);
}

}  // extern "C"

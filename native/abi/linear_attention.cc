#include "culebra/linear_attention.h"

#include "abi/registry.h"
#include "ops/linear_attention/causal_conv1d.h"
#include "ops/linear_attention/conv_fft.h"
#include "ops/linear_attention/gated_rms_norm.h"
#include "ops/linear_attention/linear_attention.h"
#include "ops/linear_attention/local_linear_attention.h"
#include "ops/linear_attention/mixture_of_memories.h"
#include "ops/linear_attention/mlstm.h"
#include "ops/linear_attention/recurrence.h"

namespace culebra {

static constexpr Op<RecurrenceParams> kSimpleGla{
    "simple_gla", "linear_attention", "f32 f16 bf16", cpu::recurrence, CUL_CUDA(recurrence), CUL_SIMT(recurrence)};
static constexpr Op<RecurrenceParams> kGatedLinearAttention{
    "gated_linear_attention", "linear_attention", "f32 f16 bf16", cpu::recurrence,
    CUL_CUDA(recurrence), CUL_SIMT(recurrence)};
static constexpr Op<RecurrenceParams> kDeltaRule{
    "delta_rule", "linear_attention", "f32 f16 bf16", cpu::recurrence, CUL_CUDA(recurrence), CUL_SIMT(recurrence)};
static constexpr Op<RecurrenceParams> kGatedDeltaRule{
    "gated_delta_rule", "linear_attention", "f32 f16 bf16", cpu::recurrence,
    CUL_CUDA(recurrence), CUL_SIMT(recurrence)};
static constexpr Op<RecurrenceParams> kKda{
    "kda", "linear_attention", "f32 f16 bf16", cpu::recurrence, CUL_CUDA(recurrence), CUL_SIMT(recurrence)};
static constexpr Op<LinearAttentionParams> kLinearAttention{
    "linear_attention", "linear_attention", "f32 f16 bf16", cpu::linear_attention,
    CUL_CUDA(linear_attention), CUL_SIMT(linear_attention)};
static constexpr Op<MlstmParams> kMlstm{
    "mlstm", "linear_attention", "f32 f16 bf16", cpu::mlstm, CUL_CUDA(mlstm), CUL_SIMT(mlstm)};
static constexpr Op<MixtureOfMemoriesParams> kMixtureOfMemories{
    "mixture_of_memories", "linear_attention", "f32 f16 bf16", cpu::mixture_of_memories,
    CUL_CUDA(mixture_of_memories), CUL_SIMT(mixture_of_memories)};
static constexpr Op<LocalLinearAttentionParams> kLocalLinearAttention{
    "local_linear_attention", "linear_attention", "f32 f16 bf16", cpu::local_linear_attention,
    CUL_CUDA(local_linear_attention), CUL_SIMT(local_linear_attention)};
static constexpr Op<CausalConv1dParams> kCausalConv1d{
    "causal_conv1d", "linear_attention", "f32 f16 bf16", cpu::causal_conv1d,
    CUL_CUDA(causal_conv1d), CUL_SIMT(causal_conv1d)};
static constexpr Op<ConvFftParams> kConvFft{
    "conv_fft", "linear_attention", "f32 f16 bf16", cpu::conv_fft, CUL_CUDA(conv_fft), CUL_SIMT(conv_fft)};
static constexpr Op<GatedRmsNormParams> kGatedRmsNorm{
    "gated_rms_norm", "linear_attention", "f32 f16 bf16", cpu::gated_rms_norm,
    CUL_CUDA(gated_rms_norm), CUL_SIMT(gated_rms_norm)};

static constexpr const OpRecord* kOps[] = {&kSimpleGla, &kGatedLinearAttention, &kDeltaRule, &kGatedDeltaRule,
                                           &kKda, &kLinearAttention, &kMlstm, &kMixtureOfMemories,
                                           &kLocalLinearAttention, &kCausalConv1d, &kConvFft, &kGatedRmsNorm};
const OpList kLinearAttentionOps{kOps, static_cast<int>(std::size(kOps))};

}  // namespace culebra

using namespace culebra;

extern "C" {

cul_status cul_simple_gla(cul_stream* stream, const cul_recurrence_args* args) {
  return run_op(kSimpleGla, stream, args, check_simple_gla);
}
cul_status cul_gated_linear_attention(cul_stream* stream, const cul_recurrence_args* args) {
  return run_op(kGatedLinearAttention, stream, args, check_gated_linear_attention);
}
cul_status cul_delta_rule(cul_stream* stream, const cul_recurrence_args* args) {
  return run_op(kDeltaRule, stream, args, check_delta_rule);
}
cul_status cul_gated_delta_rule(cul_stream* stream, const cul_recurrence_args* args) {
  return run_op(kGatedDeltaRule, stream, args, check_gated_delta_rule);
}
cul_status cul_kda(cul_stream* stream, const cul_recurrence_args* args) {
  return run_op(kKda, stream, args, check_kda);
}
cul_status cul_linear_attention(cul_stream* stream, const cul_linear_attention_args* args) {
  return run_op(kLinearAttention, stream, args, check_linear_attention);
}
cul_status cul_mlstm(cul_stream* stream, const cul_mlstm_args* args) {
  return run_op(kMlstm, stream, args, check_mlstm);
}
cul_status cul_mixture_of_memories(cul_stream* stream, const cul_mixture_of_memories_args* args) {
  return run_op(kMixtureOfMemories, stream, args, check_mixture_of_memories);
}
cul_status cul_local_linear_attention(cul_stream* stream, const cul_local_linear_attention_args* args) {
  return run_op(kLocalLinearAttention, stream, args, check_local_linear_attention);
}
cul_status cul_causal_conv1d(cul_stream* stream, const cul_causal_conv1d_args* args) {
  return run_op(kCausalConv1d, stream, args, check_causal_conv1d);
}
cul_status cul_conv_fft(cul_stream* stream, const cul_conv_fft_args* args) {
  return run_op(kConvFft, stream, args, check_conv_fft);
}
cul_status cul_gated_rms_norm(cul_stream* stream, const cul_gated_rms_norm_args* args) {
  return run_op(kGatedRmsNorm, stream, args, check_gated_rms_norm);
}

}  // extern "C"

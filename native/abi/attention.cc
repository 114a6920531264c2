#include "culebra/attention.h"

#include "abi/registry.h"
#include "ops/attention/attention.h"
#include "ops/attention/merge_states.h"
#include "ops/attention/mla_attention.h"
#include "ops/attention/paged_append.h"

namespace culebra {

static constexpr Op<AttentionParams> kAttention{"attention", "attention", "f32 f16 bf16", cpu::attention, CUL_CUDA(attention), CUL_SIMT(attention),
                                                CUL_KERNELS_80 | CUL_KERNELS_90};
static constexpr Op<AttentionParams> kPagedAttention{"paged_attention", "attention", "f32 f16 bf16", cpu::attention,
                                                     CUL_CUDA(paged_attention), CUL_SIMT(paged_attention)};
static constexpr Op<PagedAppendParams> kPagedAppend{"paged_append", "attention", "f32 f16 bf16", cpu::paged_append, CUL_CUDA(paged_append),
                                                    CUL_SIMT(paged_append)};
static constexpr Op<MergeStatesParams> kMergeStates{"merge_states", "attention", "f32 f16 bf16", cpu::merge_states, CUL_CUDA(merge_states),
                                                    CUL_SIMT(merge_states)};
static constexpr Op<MlaParams> kMlaAttention{"mla_attention", "attention", "f32 f16 bf16", cpu::mla_attention, CUL_CUDA(mla_attention),
                                             CUL_SIMT(mla_attention)};

static constexpr const OpRecord* kOps[] = {&kAttention, &kMergeStates, &kMlaAttention, &kPagedAttention, &kPagedAppend};
const OpList kAttentionOps{kOps, static_cast<int>(std::size(kOps))};

}  // namespace culebra

using namespace culebra;

extern "C" {

cul_status cul_attention(cul_stream* stream, const cul_attention_args* args) {
  return run_op(kAttention, stream, args, check_attention);
}
cul_status cul_paged_attention(cul_stream* stream, const cul_paged_attention_args* args) {
  return run_op(kPagedAttention, stream, args, check_paged_attention);
}
cul_status cul_paged_append(cul_stream* stream, const cul_paged_append_args* args) {
  return run_op(kPagedAppend, stream, args, check_paged_append);
}
cul_status cul_merge_states(cul_stream* stream, const cul_merge_states_args* args) {
  return run_op(kMergeStates, stream, args, check_merge_states);
}
cul_status cul_mla_attention(cul_stream* stream, const cul_mla_attention_args* args) {
  return run_op(kMlaAttention, stream, args, check_mla_attention);
}

}  // extern "C"

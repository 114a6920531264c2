/* Mixture of experts. T tokens, E experts, k experts a token, D model width, I expert width. Ids below 0 or >= E are
 * skipped: they contribute nothing (and are a DEVICE_ERROR under CUL_OP_VALIDATE when >= E or < -1). */
#ifndef CULEBRA_MOE_H
#define CULEBRA_MOE_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { CUL_SCORE_SOFTMAX = 0, CUL_SCORE_SIGMOID = 1 };

/* logits [T,E] f32 or half, bias? f32 [E] -> weights f32, ids i32 [T, k + n_shared]. Selection by descending score + bias, ties to
 * the lowest id; groups of E / n_group experts are selected first (topk_group of them) by their best score, with bias by
 * the sum of their best two. Weights are scores without bias, divided by (sum + 1e-20) with renormalize, times scale. A
 * score that is not finite counts as 0. Shared experts E .. E+n_shared-1 are appended with weight 1. k <= 32, E <= 2048. */
typedef struct cul_moe_route_args {
  cul_op_call call;
  const cul_tensor* logits;
  const cul_tensor* bias; /* optional */
  const cul_tensor* weights;
  const cul_tensor* ids;
  int32_t k;
  int32_t score;
  int32_t n_group;    /* 1 = none */
  int32_t topk_group; /* 1 with n_group 1 */
  int32_t renormalize;
  int32_t n_shared;
  float scale;
  int32_t reserved0;
} cul_moe_route_args;
CUL_API cul_status cul_moe_route(cul_stream* stream, const cul_moe_route_args* args);

/* Which rows an expert computes. ids i32 [T,k] -> a list of slots (slot = t k + j) by expert, in ascending order within one. Skipped:
 * slots whose id is below 0 or >= experts, and those of experts that expert_map gives to another device.
 * expert_map? i32 [experts]: the local expert of each, 0..local_experts-1, or -1: remote; absent: the experts themselves, then
 * local_experts = experts. With C = T k + local_experts (block - 1), rounded up to a multiple of block:
 *   sorted i32 [C]: each expert's slots, padded to a multiple of block with T k; T k also beyond n_padded
 *   block_expert i32 [C / block]: the local expert of each block of `sorted`, -1 beyond n_padded
 *   offsets i64 [local_experts + 1], inverse i32 [T k]: the same order without the padding: where an expert's slots begin, and where a
 *     slot stands, -1 for skipped ones
 *   n_padded i32 [1]: how many entries of `sorted` are in use
 * sorted and block_expert may be longer. No output overlaps another or an input. All but ids are compact. C < 2^31.
 * Under CUL_OP_VALIDATE an id above experts - 1 or below -1, and an entry of expert_map that is neither -1 nor a local expert, are a
 * DEVICE_ERROR; without it such entries count as -1. */
typedef struct cul_moe_align_args {
  cul_op_call call;
  const cul_tensor* ids;
  const cul_tensor* expert_map; /* optional */
  const cul_tensor* sorted;
  const cul_tensor* block_expert;
  const cul_tensor* offsets;
  const cul_tensor* inverse;
  const cul_tensor* n_padded;
  int32_t experts;
  int32_t local_experts;
  int32_t block; /* 8, 16, 32, 64, 128 */
  int32_t reserved0;
} cul_moe_align_args;
CUL_API cul_status cul_moe_align(cul_stream* stream, const cul_moe_align_args* args);

/* rows[inverse[t k + j]] = x[t], bit for bit. x [T,D] f32, half or f8e4m3; inverse i32 [T k], compact; rows [T k, D] as x, of which no
 * other row is written. Entries of inverse below 0 or >= T k are skipped (a DEVICE_ERROR under CUL_OP_VALIDATE when >= T k or < -1);
 * no two may be equal. rows overlaps neither input. */
typedef struct cul_moe_permute_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* inverse;
  const cul_tensor* rows;
  int32_t k;
  int32_t reserved0;
} cul_moe_permute_args;
CUL_API cul_status cul_moe_permute(cul_stream* stream, const cul_moe_permute_args* args);

/* y[t] = sum_j weights[t,j] rows[inverse[t k + j]], in the order of j, in f32. rows [T k, D] f32 or half; inverse i32 [T k], compact;
 * weights f32 [T,k]; y [T,D] as rows. Entries of inverse below 0 or >= T k are skipped, as by moe_permute; rows that no slot
 * addresses are not read. y overlaps no input.
 * dispatched 1: rows [N,D] and inverse are those of moe_dispatch: N is any number, and an entry of -2 makes y[t] NaN. */
typedef struct cul_moe_combine_args {
  cul_op_call call;
  const cul_tensor* rows;
  const cul_tensor* inverse;
  const cul_tensor* weights;
  const cul_tensor* y;
  int32_t k;
  int32_t dispatched;
} cul_moe_combine_args;
CUL_API cul_status cul_moe_combine(cul_stream* stream, const cul_moe_combine_args* args);

/* Rows for the ranks that have the experts. Slot t k + j goes to rank expert_rank[ids[t,j]], where its expert is number expert_local[...]:
 * rows[r capacity + i] = x[t] bit for bit and row_ids[r capacity + i] = that number for the i-th slot of rank r, in ascending order of
 * slots; row_ids is -1 and rows is not written where a rank has no more of them. inverse[t k + j] is the slot's row, -1 for skipped
 * ones, and -2 for those beyond capacity: they are not sent. counts[r]: the slots of rank r, sent or not.
 * x [T,D] f32, half or f8e4m3; ids i32 [T,k]; expert_rank, expert_local i32 [experts]; rows [ranks capacity, D] as x; row_ids i32 [ranks
 * capacity], inverse i32 [T k], counts i32 [ranks]. Skipped: ids outside of the experts, and experts whose rank is none of these. Under
 * CUL_OP_VALIDATE an id or a rank that is neither -1 nor one is a DEVICE_ERROR. At most 4096 ranks. Nothing overlaps. */
typedef struct cul_moe_dispatch_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* ids;
  const cul_tensor* expert_rank;
  const cul_tensor* expert_local;
  const cul_tensor* rows;
  const cul_tensor* row_ids;
  const cul_tensor* inverse;
  const cul_tensor* counts;
} cul_moe_dispatch_args;
CUL_API cul_status cul_moe_dispatch(cul_stream* stream, const cul_moe_dispatch_args* args);

enum { CUL_MOE_ACT_SILU = 0, CUL_MOE_ACT_GELU = 1, CUL_MOE_ACT_SWIGLU_OAI = 2 };
enum { CUL_EXPERTS_HALF = 0, CUL_EXPERTS_F8 = 1, CUL_EXPERTS_INT4 = 2 };

/* y = sum_j weights[t,j] (w2 (act(gate) * up) + b2), (gate, up) = w13 x + b13 of expert ids[t,j].
 * x, y [T,D] half; weights f32, ids i32 [T,k]; b13? [E,2I], b2? [E,D] as x. w13 [E,2I,D] (gate rows first), w2 [E,D,I]:
 * half as x; f8e4m3 with scales f32 [E,cd(N,128),cd(K,128)]; int4 u8 [E,N,K/2] (low nibble = even k, zero point 8) with scales
 * half [E,N,G] and zeros? u8 [E,N/2,G] (low nibble = even n). swiglu_oai: gate = min(gate, limit), up clamped to
 * +-limit, (up + 1) gate sigmoid(alpha gate). The same expert may occur twice in a row.
 * Instead of weights and ids: logits [T, E - n_shared] f32 or half, with route_bias? f32 and the attributes from k on, from which
 * they are made as by cul_moe_route (its shared experts are the last n_shared of the E). Both at once are UNSUPPORTED. */
typedef struct cul_moe_mlp_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* w13;
  const cul_tensor* w13_scales; /* f8, int4 */
  const cul_tensor* w13_zeros;  /* int4, optional */
  const cul_tensor* w2;
  const cul_tensor* w2_scales;
  const cul_tensor* w2_zeros;
  const cul_tensor* b13; /* optional */
  const cul_tensor* b2;  /* optional */
  const cul_tensor* weights;
  const cul_tensor* ids;
  const cul_tensor* logits;     /* instead of weights and ids */
  const cul_tensor* route_bias; /* optional, with logits */
  const cul_tensor* y;
  int32_t experts;
  int32_t group; /* int4: -1, 32, 64, 128 */
  int32_t act;
  float alpha;
  float limit;
  /* With logits, as in cul_moe_route_args: */
  int32_t k;
  int32_t score;
  int32_t n_group;
  int32_t topk_group;
  int32_t renormalize;
  int32_t n_shared;
  float scale;
} cul_moe_mlp_args;
CUL_API cul_status cul_moe_mlp(cul_stream* stream, const cul_moe_mlp_args* args);

/* c[r] = a[r] b[e]^T for the rows r in [offsets[e], offsets[e+1]) of expert e; with gather? i32 [R], row r reads a[gather[r]], zeros
 * where that is -1. a [R,K] (gather: any number of rows), c [R,N], or with CUL_EPILOGUE_SILU_MUL (gemm.h) [R,N/2]: silu of the first N/2
 * columns times the others. offsets i64 [E+1] begin with 0 and do not descend; rows from offsets[E] on stay as they are; experts without
 * rows are legal. b [E,N,K] as cul_moe_mlp's matrices: half as a; int4 with a half; f8e4m3 with a f8e4m3 and a_scale f32
 * [a's rows, cd(K,128)], where products of 128 k are summed before their scales multiply them in f32. c is f16, bf16 or f32 and overlaps
 * nothing. After CUTLASS's grouped GEMM and DeepGEMM's contiguous layout, without rows of padding. */
typedef struct cul_moe_grouped_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* a_scale; /* f8 */
  const cul_tensor* b;
  const cul_tensor* b_scales; /* f8, int4 */
  const cul_tensor* b_zeros;  /* int4, optional */
  const cul_tensor* offsets;
  const cul_tensor* gather; /* optional */
  const cul_tensor* c;
  int32_t experts; /* CUL_EXPERTS_* */
  int32_t group;   /* int4: -1, 32, 64, 128 */
  int32_t act;     /* CUL_EPILOGUE_NONE, CUL_EPILOGUE_SILU_MUL */
  int32_t reserved0;
} cul_moe_grouped_gemm_args;
CUL_API cul_status cul_moe_grouped_gemm(cul_stream* stream, const cul_moe_grouped_gemm_args* args);

#ifdef __cplusplus
}
#endif
#endif

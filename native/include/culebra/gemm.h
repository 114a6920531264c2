/* Matrix products and packed weights. w = (q - z) * s. half = f16 or bf16; accumulation is f32. */
#ifndef CULEBRA_GEMM_H
#define CULEBRA_GEMM_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { CUL_ACT_NONE = 0, CUL_ACT_SILU = 1, CUL_ACT_GELU = 2 /* erf form */ };

/* c = act(a b^T + bias). a [M,K], b [N,K], bias? [N], of one dtype f32, f16 or bf16; c [M,N] f32, f16 or bf16.
 * f32 uses no TF32. K = 0 gives act(bias). c overlaps nothing. */
typedef struct cul_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* b;
  const cul_tensor* bias; /* optional */
  const cul_tensor* c;
  int32_t act;
  int32_t reserved0;
} cul_gemm_args;
CUL_API cul_status cul_gemm(cul_stream* stream, const cul_gemm_args* args);

/* ------------------------------------------------------------------------------------------- packed weights */

/* Checkpoint formats; bit layouts in native/ops/gemm/README.md. GPTQ v1 stores z - 1, v2 stores z. AUTO is decided by
 * cul_pack_plan from the stored zeros, and is not a format that cul_pack_weights takes. */
enum {
  CUL_FORMAT_PLAIN = 0,
  CUL_FORMAT_GPTQ_V1 = 1,
  CUL_FORMAT_GPTQ_V2 = 2,
  CUL_FORMAT_GPTQ_AUTO = 3,
  CUL_FORMAT_AWQ = 4,
  CUL_FORMAT_COMPRESSED_TENSORS = 5
};

/* Which values of a scale share it: those of a row and group, or of a block of 128 rows by 128 k. */
enum { CUL_SCALING_GROUP = 0, CUL_SCALING_BLOCK128 = 1 };
/* Of each four consecutive k of a 2:4 matrix at most two weights are not their zero point. */
enum { CUL_SPARSITY_NONE = 0, CUL_SPARSITY_2_4 = 1 };
/* What packed weights will be multiplied with: f16 or bf16 (w*a16 products), or bytes (w*a8 products). */
enum { CUL_OPERAND_HALF = 0, CUL_OPERAND_BYTE = 1 };

/* A quantized weight matrix [N,K] as a checkpoint stores it. group -1 = one group over all of K.
 * plain: q u8 or i8 (bits 4, 6, 8), or f8e4m3 (bits 8; then no zeros); scales half [N,G], f8e4m3 [N,G] (bits 4, operand byte), or
 * f32 [ceil(N/128), ceil(K/128)] with scaling block128 (bits 8, group -1, no g_idx). sparsity 2:4: plain, bits 4, symmetric. */
typedef struct cul_checkpoint {
  uint32_t struct_size;
  int32_t format;
  int32_t bits;     /* 4, 6 (plain only) or 8 */
  int32_t group;    /* -1, 32, 64, 128; 6 bits: 128 */
  int32_t scaling;  /* CUL_SCALING_* */
  int32_t sparsity; /* CUL_SPARSITY_* */
  int32_t operand;  /* CUL_OPERAND_*; byte: bits 4 or 6, plain, symmetric, group 128, no g_idx */
  int32_t reserved0;
  int64_t n;     /* logical; from the tensors' shapes, or from weight_shape for compressed-tensors */
  int64_t k;
  const cul_tensor* qweight; /* qweight, weight_packed or q */
  const cul_tensor* scales;
  const cul_tensor* zeros;   /* optional except for gptq and awq */
  const cul_tensor* g_idx;   /* optional */
} cul_checkpoint;

/* What packing a checkpoint for a device gives. Packing sorts the rows of k by group where g_idx asks for it, pads every
 * group to whole chunks of `group` rows, and lays the result out for the device's kernel. */
typedef struct cul_pack_plan_result {
  uint32_t struct_size;
  int32_t format;     /* with AUTO resolved */
  int32_t group;      /* rows per packed group; k_padded for one group over all */
  int32_t symmetric;  /* 1: every zero point is 2^(bits-1), and packed zeros are left out */
  int32_t permuted;   /* 1: perm and group_source are needed (act-order, uneven groups) */
  int32_t reserved0;
  int64_t n_padded;
  int64_t k_padded;
  int64_t groups;        /* rows of packed scales */
  int64_t scale_columns; /* columns of packed scales: n_padded, or blocks of 128 of n */
  int64_t packed_bytes;  /* the packed tensor is u8 [packed_bytes] (f8e4m3 where q is) */
} cul_pack_plan_result;

/* Pure host function: reads zeros and g_idx, and with sparsity 2:4 qweight (which is refused with RANGE where it is not 2:4);
 * they must be host memory here (device type CPU). Other tensors are looked at for shape and dtype only. perm (k_padded entries: source k, or -1 for padding) and group_source (groups
 * entries: the checkpoint's group of each packed one) may be NULL to ask for sizes first. */
CUL_API cul_status cul_pack_plan(cul_device* device, const cul_checkpoint* checkpoint, cul_pack_plan_result* out,
                                 int32_t* perm, int32_t* group_source);

/* Packs on the stream's device: all tensors are that device's. The shapes come from cul_pack_plan.
 * packed u8 or f8e4m3 [packed_bytes]; packed_scales [groups, scale_columns] as checkpoint.scales; packed_zeros? u8 [groups, n_padded];
 * perm? i32 [k_padded] and group_source? i32 [groups]: inputs, both or neither. */
typedef struct cul_pack_weights_args {
  cul_op_call call;
  const cul_checkpoint* checkpoint;
  const cul_tensor* perm;         /* optional input */
  const cul_tensor* group_source; /* optional input */
  const cul_tensor* packed;
  const cul_tensor* packed_scales;
  const cul_tensor* packed_zeros; /* absent: symmetric */
  int64_t packed_group;           /* cul_pack_plan_result.group */
} cul_pack_weights_args;
CUL_API cul_status cul_pack_weights(cul_stream* stream, const cul_pack_weights_args* args);

/* The exact inverse: fills the tensors of checkpoint (outputs here) bit for bit; bits beyond N, K in a last word are 0.
 * To the plain format it gives q u8 [N,K] unsigned, scales [N,G], zeros u8 [N,G], g_idx in original k order. */
typedef struct cul_unpack_weights_args {
  cul_op_call call;
  const cul_checkpoint* checkpoint;
  const cul_tensor* perm;
  const cul_tensor* group_source;
  const cul_tensor* packed;
  const cul_tensor* packed_scales;
  const cul_tensor* packed_zeros;
  int64_t packed_group;
} cul_unpack_weights_args;
CUL_API cul_status cul_unpack_weights(cul_stream* stream, const cul_unpack_weights_args* args);

/* Round-to-nearest quantization with a per-group search of the clipping that minimises the squared error (the unclipped
 * scale is among the candidates). w [N,K] half or f32 -> q u8 [N,K] (zero point 2^(bits-1) where symmetric),
 * scales [N,G] half or f32, zeros? u8 [N,G] (asymmetric only). bits 4, 6, 8; group -1, 32, 64, 128; the last group may be
 * partial. An all-zero group gives exact zeros. */
typedef struct cul_quantize_weights_args {
  cul_op_call call;
  const cul_tensor* w;
  const cul_tensor* q;
  const cul_tensor* scales;
  const cul_tensor* zeros; /* required iff symmetric is 0 */
  int32_t bits;
  int32_t group;
  int32_t symmetric;
  int32_t reserved0;
} cul_quantize_weights_args;
CUL_API cul_status cul_quantize_weights(cul_stream* stream, const cul_quantize_weights_args* args);

enum { CUL_EPILOGUE_NONE = 0, CUL_EPILOGUE_SILU = 1, CUL_EPILOGUE_SILU_MUL = 2 };

/* c = epilogue(a w^T + bias), w [N,K] int4, packed. a [M,K] half; bias? [N] as a; c [M,N] as a, or [M,N/2] with
 * silu_mul: silu(first N/2 columns) * (last N/2). group as in the packed weights; scales may be the other half type.
 * Frantar et al., MARLIN, arXiv:2408.11743. */
typedef struct cul_w4a16_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* packed;
  const cul_tensor* packed_scales;
  const cul_tensor* packed_zeros; /* absent: symmetric */
  const cul_tensor* perm;         /* absent: k is in order */
  const cul_tensor* bias;         /* optional */
  const cul_tensor* c;
  int64_t n;            /* logical */
  int64_t k;
  int64_t packed_group; /* cul_pack_plan_result.group */
  int32_t epilogue;
  int32_t reserved0;
} cul_w4a16_gemm_args;
CUL_API cul_status cul_w4a16_gemm(cul_stream* stream, const cul_w4a16_gemm_args* args);

/* The same product with weights that are 2:4 sparse (packed with sparsity 2:4; group -1 or 128, symmetric): half the operations, and
 * K/2 values with 2-bit positions instead of K values. Epilogues as w4a16. Frantar et al., arXiv:2408.11743, section 5 (Sparse-MARLIN). */
typedef struct cul_w4a16_sparse24_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* packed;
  const cul_tensor* packed_scales;
  const cul_tensor* bias; /* optional */
  const cul_tensor* c;
  int64_t n; /* logical */
  int64_t k;
  int64_t packed_group;
  int32_t epilogue;
  int32_t reserved0;
} cul_w4a16_sparse24_gemm_args;
CUL_API cul_status cul_w4a16_sparse24_gemm(cul_stream* stream, const cul_w4a16_sparse24_gemm_args* args);

/* The same product with 8-bit weights: packed u8 (integers, with zeros or symmetric) or f8e4m3 (whose NaN codes, which no
 * checkpoint has, count as +-480). packed_scales half
 * [groups, n_padded], or f32 [groups, ceil(n_padded/128)]: scaling block128. */
typedef struct cul_w8a16_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* packed;
  const cul_tensor* packed_scales;
  const cul_tensor* packed_zeros; /* absent: symmetric, or f8e4m3 */
  const cul_tensor* perm;         /* absent: k is in order */
  const cul_tensor* bias;         /* optional */
  const cul_tensor* c;
  int64_t n; /* logical */
  int64_t k;
  int64_t packed_group;
  int32_t epilogue;
  int32_t reserved0;
} cul_w8a16_gemm_args;
CUL_API cul_status cul_w8a16_gemm(cul_stream* stream, const cul_w8a16_gemm_args* args);

/* The same product with symmetric 6-bit weights in groups of 128; six bits a weight are read, not eight. */
typedef struct cul_w6a16_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* packed;
  const cul_tensor* packed_scales;
  const cul_tensor* bias; /* optional */
  const cul_tensor* c;
  int64_t n; /* logical */
  int64_t k;
  int64_t packed_group;
  int32_t epilogue;
  int32_t reserved0;
} cul_w6a16_gemm_args;
CUL_API cul_status cul_w6a16_gemm(cul_stream* stream, const cul_w6a16_gemm_args* args);

/* ------------------------------------------------------------------------------------------ 8-bit activations */

enum { CUL_QUANTIZE_PER_TOKEN = 0, CUL_QUANTIZE_PER_BLOCK128 = 1, CUL_QUANTIZE_STATIC = 2 };

/* q = x / scale, rounded to nearest even and saturated; scale = max(amax / qmax, 1e-12), qmax 127 (i8) or 448 (f8e4m3), of a row
 * or of 128 values of a row; static: scale [1] is given (i8 then saturates at -128). x [M,K] half or f32 -> q i8 or f8e4m3 [M,K],
 * scales f32 [M,1] or [M, ceil(K/128)]. */
typedef struct cul_quantize_activations_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* scale; /* f32 [1]; static only */
  const cul_tensor* q;
  const cul_tensor* scales; /* per_token, per_block128 */
  int32_t mode;             /* CUL_QUANTIZE_* */
  int32_t reserved0;
} cul_quantize_activations_args;
CUL_API cul_status cul_quantize_activations(cul_stream* stream, const cul_quantize_activations_args* args);

enum { CUL_FP8_SCALING_TENSOR = 0, CUL_FP8_SCALING_TOKEN_CHANNEL = 1, CUL_FP8_SCALING_BLOCK128 = 2 };

/* c = (a a_scale)(b b_scale)^T + bias. a [M,K], b [N,K] f8e4m3, K a multiple of 16; bias? [N] as c; c [M,N] f16, bf16 or f32.
 * scales f32: tensor [1], [1]; token_channel [M,1], [N,1]; block128 [M, ceil(K/128)], [ceil(N/128), ceil(K/128)]. Sums of 128
 * products at most stay in the tensor cores' accumulators before they are added in f32. cuda: sm_90. */
typedef struct cul_fp8_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* b;
  const cul_tensor* a_scale;
  const cul_tensor* b_scale;
  const cul_tensor* bias; /* optional */
  const cul_tensor* c;
  int32_t scaling; /* CUL_FP8_SCALING_* */
  int32_t reserved0;
} cul_fp8_gemm_args;
CUL_API cul_status cul_fp8_gemm(cul_stream* stream, const cul_fp8_gemm_args* args);

/* c = epilogue((a a_scale) w^T), w = q group_scale channel_scale, q int4. a f8e4m3 [M,K], a_scale f32 [M]; weights packed with bits 4
 * and operand byte: packed_scales f8e4m3 [groups, n_padded], group 128; channel_scale f32 [N]; c f16 or bf16 [M,N], or
 * [M,N/2] with silu_mul. Group scales multiply f32 sums: q group_scale is not rounded. FireQ, arXiv:2505.20839. cuda: sm_90. */
typedef struct cul_w4a8_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* a_scale;
  const cul_tensor* packed;
  const cul_tensor* packed_scales;
  const cul_tensor* channel_scale;
  const cul_tensor* c;
  int64_t n; /* logical */
  int64_t k;
  int32_t epilogue; /* none or silu_mul */
  int32_t reserved0;
} cul_w4a8_gemm_args;
CUL_API cul_status cul_w4a8_gemm(cul_stream* stream, const cul_w4a8_gemm_args* args);

/* c = epilogue((a a_scale) w^T + bias), w symmetric 6-bit in groups of 128. a i8 [M,K], a_scale f32 [M]; weights packed with bits 6 and
 * operand byte, packed_scales half [groups, n_padded]; bias? [N] as c; c f16 or bf16 [M,N]. Sums of a group are exact in
 * 32-bit integers. FlexQ, arXiv:2508.04405. */
typedef struct cul_w6a8_gemm_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* a_scale;
  const cul_tensor* packed;
  const cul_tensor* packed_scales;
  const cul_tensor* bias; /* optional */
  const cul_tensor* c;
  int64_t n; /* logical */
  int64_t k;
  int32_t epilogue;
  int32_t reserved0;
} cul_w6a8_gemm_args;
CUL_API cul_status cul_w6a8_gemm(cul_stream* stream, const cul_w6a8_gemm_args* args);

/* ----------------------------------------------------------------------------------- products that skip work */

/* h = silu(x w_gate^T); y = (h [|h| >= threshold] (x w_up^T)) w_down_t, each row on its own: rows of w_up and w_down_t that no row of
 * x needs are not read. x half [B,D], B <= 4; w_gate, w_up, w_down_t [I,D] as x; y [B,D] as x; active? i32 [B]: rows taken.
 * CATS, arXiv:2404.08763. */
typedef struct cul_sparse_mlp_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* w_gate;
  const cul_tensor* w_up;
  const cul_tensor* w_down_t;
  const cul_tensor* y;
  const cul_tensor* active; /* optional */
  float threshold;          /* >= 0 */
  int32_t reserved0;
} cul_sparse_mlp_args;
CUL_API cul_status cul_sparse_mlp(cul_stream* stream, const cul_sparse_mlp_args* args);

/* lse = log sum_v exp(z_v), logprob = z_target - lse, z = softcap(e c^T + bias), softcap(x) = s tanh(x / s) (0: none), without storing z:
 * scratch is O(N). e [N,D], c [V,D], bias? [V], of one dtype half or f32; targets i64 [N]; logprob, lse f32 [N]. Target t is
 * row t - vocab_start of c; ignore_index gives logprob 0, a target outside c -inf (so that shards merge by adding
 * exponentials). Cut Cross-Entropy, arXiv:2411.09009. */
typedef struct cul_linear_logprob_args {
  cul_op_call call;
  const cul_tensor* e;
  const cul_tensor* c;
  const cul_tensor* bias; /* optional */
  const cul_tensor* targets;
  const cul_tensor* logprob;
  const cul_tensor* lse;
  int64_t ignore_index; /* often -100 */
  int64_t vocab_start;
  float softcap; /* >= 0 */
  int32_t reserved0;
} cul_linear_logprob_args;
CUL_API cul_status cul_linear_logprob(cul_stream* stream, const cul_linear_logprob_args* args);

#ifdef __cplusplus
}
#endif
#endif

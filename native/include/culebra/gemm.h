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

/* A quantized weight matrix [N,K] as a checkpoint stores it. group -1 = one group over all of K. */
typedef struct cul_checkpoint {
  uint32_t struct_size;
  int32_t format;
  int32_t bits;  /* 4, 6 (plain only) or 8 */
  int32_t group; /* -1, 32, 64, 128 */
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
  int64_t groups;       /* rows of packed scales */
  int64_t packed_bytes; /* the packed tensor is u8 [packed_bytes] */
} cul_pack_plan_result;

/* Pure host function: reads zeros and g_idx, which must be host memory here (device type CPU); qweight and scales are
 * looked at for shape and dtype only. perm (k_padded entries: source k, or -1 for padding) and group_source (groups
 * entries: the checkpoint's group of each packed one) may be NULL to ask for sizes first. */
CUL_API cul_status cul_pack_plan(cul_device* device, const cul_checkpoint* checkpoint, cul_pack_plan_result* out,
                                 int32_t* perm, int32_t* group_source);

/* Packs on the stream's device: all tensors are that device's. The shapes come from cul_pack_plan.
 * packed u8 [packed_bytes]; packed_scales [groups, n_padded] as checkpoint.scales; packed_zeros? u8 [groups, n_padded];
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

#ifdef __cplusplus
}
#endif
#endif

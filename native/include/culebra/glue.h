/* Glue: the small operators between the matrix products. Formulas are per element or per row; accumulation is f32.
 * half = f16 or bf16. Unless a row says otherwise: tensors of one op share one dtype of {f16, bf16, f32}, the innermost
 * stride is 1, other strides are free, outputs overlap no input (but an output may BE an input, element for element,
 * where "in place" is said). T = 0 succeeds. */
#ifndef CULEBRA_GLUE_H
#define CULEBRA_GLUE_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

/* y = h / sqrt(mean(h^2) + eps) * gain, h = x + residual (x where residual is absent), gain = weight or 1 + weight.
 * x, y [T,D]; weight [D]; residual, residual_out [T,D]: residual_out = h, rounded; y is computed from the rounded h.
 * In place: residual_out may be residual or x; y may be x. Zhang and Sennrich, arXiv:1910.07467. */
typedef struct cul_rms_norm_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* weight;
  const cul_tensor* residual;     /* optional */
  const cul_tensor* y;
  const cul_tensor* residual_out; /* optional; needs residual */
  float eps;
  int32_t zero_centered; /* 0 or 1 */
} cul_rms_norm_args;
CUL_API cul_status cul_rms_norm(cul_stream* stream, const cul_rms_norm_args* args);

/* y = (x - mean) / sqrt(var + eps) * weight + bias. x, y [T,D]; weight, bias? [D]. In place allowed. */
typedef struct cul_layer_norm_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* weight;
  const cul_tensor* bias; /* optional */
  const cul_tensor* y;
  float eps;
  int32_t reserved0;
} cul_layer_norm_args;
CUL_API cul_status cul_layer_norm(cul_stream* stream, const cul_layer_norm_args* args);

/* Rotary embedding. x, y [T,H,D]; cos, sin f32 [P,R/2]; positions i64 [T]. The first R channels turn in pairs
 * (i, i + R/2), interleaved: (2i, 2i+1); channels from R on are copied. In place allowed. Su et al., arXiv:2104.09864. */
typedef struct cul_rope_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* cos;
  const cul_tensor* sin;
  const cul_tensor* positions;
  const cul_tensor* y;
  int32_t interleaved;
  int32_t reserved0;
} cul_rope_args;
CUL_API cul_status cul_rope(cul_stream* stream, const cul_rope_args* args);

/* y = silu(gate) * up. gate, up, y [T,I]; in place on either input. */
typedef struct cul_silu_mul_args {
  cul_op_call call;
  const cul_tensor* gate;
  const cul_tensor* up;
  const cul_tensor* y;
} cul_silu_mul_args;
CUL_API cul_status cul_silu_mul(cul_stream* stream, const cul_silu_mul_args* args);

enum { CUL_GELU_ERF = 0, CUL_GELU_TANH = 1 };
/* y = gelu(gate) * up; form erf or tanh. */
typedef struct cul_gelu_mul_args {
  cul_op_call call;
  const cul_tensor* gate;
  const cul_tensor* up;
  const cul_tensor* y;
  int32_t form;
  int32_t reserved0;
} cul_gelu_mul_args;
CUL_API cul_status cul_gelu_mul(cul_stream* stream, const cul_gelu_mul_args* args);

/* y = x * sigmoid(gate). x, y [T,I]; gate [T,I], or [T,1] for one gate a row. In place on x. */
typedef struct cul_sigmoid_mul_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* gate;
  const cul_tensor* y;
} cul_sigmoid_mul_args;
CUL_API cul_status cul_sigmoid_mul(cul_stream* stream, const cul_sigmoid_mul_args* args);

/* y = exp(x - max) / sum over the last dimension. x, y [T,N]; -inf gives 0; a row of -inf gives NaN. */
typedef struct cul_softmax_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* y;
} cul_softmax_args;
CUL_API cul_status cul_softmax(cul_stream* stream, const cul_softmax_args* args);

/* y[t] = table[ids[t]]. table [V,D]; ids i32 or i64 [T]; y [T,D]. Id -1 gives zeros; an id outside -1..V-1 too (and is a
 * DEVICE_ERROR under CUL_OP_VALIDATE). */
typedef struct cul_embedding_args {
  cul_op_call call;
  const cul_tensor* table;
  const cul_tensor* ids;
  const cul_tensor* y;
} cul_embedding_args;
CUL_API cul_status cul_embedding(cul_stream* stream, const cul_embedding_args* args);

/* ids[t] = lowest index of the largest x[t]. x [T,N], N > 0; ids i32 [T]. NaN counts as larger than every number. */
typedef struct cul_argmax_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* ids;
} cul_argmax_args;
CUL_API cul_status cul_argmax(cul_stream* stream, const cul_argmax_args* args);

/* y = a + b. One shape, rank 0..6, any strides (0 in an input broadcasts); dtypes f32, f16, bf16, i32, i64. */
typedef struct cul_add_args {
  cul_op_call call;
  const cul_tensor* a;
  const cul_tensor* b;
  const cul_tensor* y;
} cul_add_args;
CUL_API cul_status cul_add(cul_stream* stream, const cul_add_args* args);

/* y = x * factor, in f32, rounded once. One shape, any strides. */
typedef struct cul_scale_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* y;
  float factor;
  int32_t reserved0;
} cul_scale_args;
CUL_API cul_status cul_scale(cul_stream* stream, const cul_scale_args* args);

/* y = x in y's dtype. One shape, any strides. Floats f32, f16, bf16, f8e4m3 (round to nearest even; to f8 saturating at
 * 448) and integers i8, u8, i32, i64, bool; float to integer truncates and saturates, NaN gives 0. */
typedef struct cul_cast_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* y;
} cul_cast_args;
CUL_API cul_status cul_cast(cul_stream* stream, const cul_cast_args* args);

/* y = x bit for bit. One shape and dtype (any), any strides, rank 0..6. */
typedef struct cul_copy_strided_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* y;
} cul_copy_strided_args;
CUL_API cul_status cul_copy_strided(cul_stream* stream, const cul_copy_strided_args* args);

/* One token a row from logits [B,V] (f32 or half): p = softmax(logits / temperature), cut to the top_k largest
 * (0 = all), then to the smallest set of largest ones that hold top_p of what is left (1 = all), then to those of at
 * least min_p times the largest (0 = all); renormalised; drawn by inverse transform in order of descending probability (equal
 * ones by ascending id) with one uniform number of Philox4x32-10, counter (position, 0), key seed. A row depends on its own
 * seed and position alone. temperature 0 = argmax. ids i32 [B]; logprob? f32 [B]: log of the softmax of the raw logits
 * at the chosen id. temperature, top_p, min_p f32 [B]; top_k i32 [B]; seed, position i64 [B]. */
typedef struct cul_sample_args {
  cul_op_call call;
  const cul_tensor* logits;
  const cul_tensor* temperature;
  const cul_tensor* top_k;
  const cul_tensor* top_p;
  const cul_tensor* min_p;
  const cul_tensor* seed;
  const cul_tensor* position;
  const cul_tensor* ids;
  const cul_tensor* logprob; /* optional */
} cul_sample_args;
CUL_API cul_status cul_sample(cul_stream* stream, const cul_sample_args* args);

#ifdef __cplusplus
}
#endif
#endif

/* Linear attention: recurrences over a state per sequence and value head. */
#ifndef CULEBRA_LINEAR_ATTENTION_H
#define CULEBRA_LINEAR_ATTENTION_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { CUL_STATE_VK = 0, CUL_STATE_KV = 1 };
enum { CUL_GATE_LOG = 0, CUL_GATE_SOFTPLUS = 1, CUL_GATE_LOWER_BOUND = 2 };

/* The recurrences over a state S [K,V] per sequence and value head that share one argument struct. Value head j reads q
 * and k head j / (HV / H). A field that an operator does not name must be NULL or 0.
 *   simple_gla                S = e^g S + k v^T                          g f32 [B,T,HV], or g_head f32 [HV] for every token
 *   gated_linear_attention    S = diag(e^g) S + k v^T                    g f32 [B,T,HV,K]
 *   delta_rule                S += k (beta (v - S^T k))^T                beta f32 [B,T,HV]
 *   gated_delta_rule          S = e^g S, then the delta rule on it       beta; g f32 [B,T,HV] or raw a
 *   kda                       S = diag(e^g) S, then the delta rule       beta; g f32 [B,T,HV,K] or raw a
 * and o = scale S^T q in all of them. Sources: Yang et al., arXiv:2312.06635 (gated linear attention), arXiv:2406.06484
 * (delta rule), arXiv:2412.06464 (gated delta rule); Qin et al., arXiv:2401.04658 (simple_gla); Kimi Linear,
 * arXiv:2510.26692 (kda).
 * q, k [B,T,H,K]; v, o [B,T,HV,V], HV % H == 0, one dtype f32, f16 or bf16; K, V multiples of 8 up to 256.
 * gate_mode (gated_delta_rule and kda): LOG: g is the log decay; SOFTPLUS: g = -exp(a_log) softplus(a + dt_bias);
 * LOWER_BOUND (kda): g = lower_bound sigmoid(exp(a_log) (a + dt_bias)); a as q [B,T,HV] or [B,T,HV,K], a_log f32 [HV],
 * dt_bias f32 [HV] or [HV,K]. Log gates below -30 count as -30.
 * States f32 [N,HV,V,K] (or K,V), N = B, or the number of intervals of cu_seqlens i32 [N+1] (then B = 1), from 0 to T: tokens behind
 * its end are neither read nor written, and an error with CUL_OP_VALIDATE. final_state may
 * be initial_state. With state_read_index, state_write_index i32 [N] (both or neither) the states are pools [P,...]: row -1 skips the
 * sequence (output 0, pool untouched); initial_state and final_state are then one and the same pool, or final_state
 * gets the written rows only. checkpoints f32 [C,HV,V,K]: the state after each checkpoint_every tokens.
 * A token never changes an output before it, not by a bit. */
typedef struct cul_recurrence_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* beta;
  const cul_tensor* g;                 /* gate_mode log */
  const cul_tensor* g_head;            /* simple_gla, instead of g */
  const cul_tensor* a;                 /* the other gate modes */
  const cul_tensor* a_log;             /* the other gate modes */
  const cul_tensor* dt_bias;           /* the other gate modes */
  const cul_tensor* cu_seqlens;        /* optional */
  const cul_tensor* initial_state;     /* optional: zeros */
  const cul_tensor* state_read_index;  /* optional */
  const cul_tensor* state_write_index; /* optional */
  const cul_tensor* o;
  const cul_tensor* final_state; /* optional */
  const cul_tensor* checkpoints; /* optional; iff checkpoint_every > 0 */
  float scale;                   /* 0 = K^-1/2 */
  int32_t state_layout;
  int32_t checkpoint_every; /* 0, a multiple of 64, or 1 where T <= 8 */
  int32_t qk_l2norm;        /* the delta rules: x / sqrt(sum x^2 + 1e-6) on q and k, before scale */
  int32_t gate_mode;
  float lower_bound; /* gate_mode lower_bound: in [-5, 0) */
} cul_recurrence_args;
CUL_API cul_status cul_simple_gla(cul_stream* stream, const cul_recurrence_args* args);
CUL_API cul_status cul_gated_linear_attention(cul_stream* stream, const cul_recurrence_args* args);
CUL_API cul_status cul_delta_rule(cul_stream* stream, const cul_recurrence_args* args);
CUL_API cul_status cul_gated_delta_rule(cul_stream* stream, const cul_recurrence_args* args);
CUL_API cul_status cul_kda(cul_stream* stream, const cul_recurrence_args* args);

enum {
  CUL_FEATURES_NONE = 0,
  CUL_FEATURES_ELU1 = 1,         /* x + 1 for x > 0, else e^x */
  CUL_FEATURES_RELU = 2,         /* max(x, 0) */
  CUL_FEATURES_SQUARED_RELU = 3, /* max(x, 0)^2 */
  CUL_FEATURES_HEDGEHOG = 4,     /* softmax over the 2K values [x, -x]; F = 2K */
  CUL_FEATURES_TAYLOR2 = 5       /* [1, x_i K^-1/4, x_i^2 (2K)^-1/2, x_i x_j K^-1/2 for i < j]; F = 1 + K + K (K + 1) / 2 */
};

/* Linear attention: S += k v^T, z += k; o = scale S^T q, or with normalize scale S^T q / (scale q.z + eps),
 * q and k behind the feature map, F wide (Katharopoulos et al., arXiv:2006.16236; hedgehog: Zhang et al., arXiv:2402.04347;
 * taylor2: Arora et al., arXiv:2402.18668). Tensors as in cul_recurrence_args, states f32 [N,HV,V,F] (or F,V). z belongs to
 * the q/k head: f32 [N,H,F], a pool has the same rows; z_state comes with initial_state and may be final_z_state. causal 0: each
 * token of a sequence reads S and z after the last one. */
typedef struct cul_linear_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* cu_seqlens;        /* optional */
  const cul_tensor* initial_state;     /* optional: zeros */
  const cul_tensor* z_state;           /* with normalize and initial_state */
  const cul_tensor* state_read_index;  /* optional */
  const cul_tensor* state_write_index; /* optional */
  const cul_tensor* o;
  const cul_tensor* final_state;   /* optional */
  const cul_tensor* final_z_state; /* optional; with normalize */
  const cul_tensor* checkpoints;   /* optional; iff checkpoint_every > 0 */
  float scale;                     /* 0 = K^-1/2 */
  int32_t state_layout;
  int32_t checkpoint_every;
  int32_t normalize;
  float eps;
  int32_t feature_map;
  int32_t causal;
  int32_t reserved0;
} cul_linear_attention_args;
CUL_API cul_status cul_linear_attention(cul_stream* stream, const cul_linear_attention_args* args);

enum { CUL_INPUT_GATE_EXP = 0, CUL_INPUT_GATE_SIGMOID = 1 };

/* mLSTM (Beck et al., arXiv:2405.04517, tiled in arXiv:2503.14376): a state C, a normaliser n, a stabiliser m.
 * exp:     m' = max(logsigmoid(f) + m, i); C = e^(logsigmoid(f)+m-m') C + e^(i-m') k v^T, n alike with v = 1;
 *          o = scale C^T q / (max(|scale n.q|, e^-m') + eps)
 * sigmoid: C = sigmoid(f) C + sigmoid(i) k v^T, n alike; o = scale C^T q / (max(|scale n.q|, 1) + eps), or without
 *          normalize o = scale C^T q
 * i, f f32 [B,T,H] pre-activations; with soft_cap c > 0 both count as c tanh(x / c). q, k, v, o as in cul_recurrence_args with
 * HV = H, V up to 512. States f32: C [N,H,V,K] (or K,V), n [N,H,K], m [N,H]; all of them given or none (zeros); n only with
 * normalize, m only with exp. Each final state may be its initial one. exp needs normalize. */
typedef struct cul_mlstm_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* i;
  const cul_tensor* f;
  const cul_tensor* cu_seqlens;        /* optional */
  const cul_tensor* initial_state;     /* optional: zeros */
  const cul_tensor* n_state;           /* with initial_state and normalize */
  const cul_tensor* m_state;           /* with initial_state and exp */
  const cul_tensor* state_read_index;  /* optional */
  const cul_tensor* state_write_index; /* optional */
  const cul_tensor* o;
  const cul_tensor* final_state;   /* optional */
  const cul_tensor* final_n_state; /* optional; with normalize */
  const cul_tensor* final_m_state; /* optional; with exp */
  const cul_tensor* checkpoints;   /* optional; iff checkpoint_every > 0: of C */
  float scale;                     /* 0 = K^-1/2 */
  int32_t state_layout;
  int32_t checkpoint_every;
  int32_t input_gate;
  int32_t normalize;
  float eps;
  float soft_cap; /* 0 = none */
  int32_t reserved0;
} cul_mlstm_args;
CUL_API cul_status cul_mlstm(cul_stream* stream, const cul_mlstm_args* args);

/* Mixture of memories (Du et al., arXiv:2502.13685): M gated delta rule states a sequence and value head. Slot j of a token
 * updates and reads memory ids[j] by one step; o = sum_j weights[j] o_j. ids i32, weights f32 [B,T,k]; id -1: the slot is not
 * used; the ids of a token differ. q, k, v, beta, g (or a, a_log, dt_bias) as in cul_gated_delta_rule, shared by the slots, or, where
 * each memory has projections of its own, all with a slot axis after T: q [B,T,k,H,K], beta [B,T,k,HV]. initial_state
 * f32 [N,M,HV,V,K] (or K,V) is required; checkpoints [C,M,HV,V,K]; o [B,T,HV,V]. */
typedef struct cul_mixture_of_memories_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* beta;
  const cul_tensor* g;       /* gate_mode log */
  const cul_tensor* a;       /* gate_mode softplus */
  const cul_tensor* a_log;   /* gate_mode softplus */
  const cul_tensor* dt_bias; /* gate_mode softplus */
  const cul_tensor* ids;
  const cul_tensor* weights;
  const cul_tensor* cu_seqlens; /* optional */
  const cul_tensor* initial_state;
  const cul_tensor* state_read_index;  /* optional */
  const cul_tensor* state_write_index; /* optional */
  const cul_tensor* o;
  const cul_tensor* final_state; /* optional */
  const cul_tensor* checkpoints; /* optional; iff checkpoint_every > 0 */
  float scale;                   /* 0 = K^-1/2 */
  int32_t state_layout;
  int32_t checkpoint_every;
  int32_t qk_l2norm;
  int32_t gate_mode;
  int32_t reserved0;
} cul_mixture_of_memories_args;
CUL_API cul_status cul_mixture_of_memories(cul_stream* stream, const cul_mixture_of_memories_args* args);

/* Local linear attention (Zuo et al., arXiv:2510.01450): for each query a ridge regression of v on the keys around it. Over the keys
 * that a query sees, w = e^(scale q.k), z = k - q, omega = sum w, mu = sum w z, Sigma = sum w z z^T + ridge_lambda I,
 * rho = Sigma^-1 mu, o = sum w (1 - z.rho) v / (omega - mu.rho). q [B,T,H,K]; k [B,S,H,K], v [B,S,HV,V] are the cache: the
 * queries are its last T positions, causal; o [B,T,HV,V]; S >= T. Packed: cu_seqlens of the queries and cu_seqlens_k of the
 * cache, i32 [N+1], both or neither; then B = 1. Conjugate gradients stop at a relative residual of at most tol or after
 * cg_iters; an exact solution is always allowed: cpu, and device up to K = 64. */
typedef struct cul_local_linear_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* cu_seqlens;   /* optional */
  const cul_tensor* cu_seqlens_k; /* optional */
  const cul_tensor* o;
  float scale;        /* 0 = K^-1/2 */
  float ridge_lambda; /* > 0 */
  int32_t cg_iters;   /* >= 1 */
  float tol;          /* >= 0 */
} cul_local_linear_attention_args;
CUL_API cul_status cul_local_linear_attention(cul_stream* stream, const cul_local_linear_attention_args* args);

/* y_t = act(bias + sum_j w_j x_(t-W+1+j)) per channel. x, y [B,T,C] f32 or half; w [C,W], W 2..4; bias? [C];
 * state? and final_state? [N,C,W-1] as x: the last W-1 inputs, oldest first, copied exactly; may be one tensor. Sequences
 * and pools as in cul_recurrence_args. act none | silu. */
typedef struct cul_causal_conv1d_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* w;
  const cul_tensor* bias;              /* optional */
  const cul_tensor* state;             /* optional: zeros */
  const cul_tensor* cu_seqlens;        /* optional */
  const cul_tensor* state_read_index;  /* optional */
  const cul_tensor* state_write_index; /* optional */
  const cul_tensor* y;
  const cul_tensor* final_state; /* optional */
  int32_t act;                   /* CUL_ACT_NONE or CUL_ACT_SILU of gemm.h: 0 or 1 */
  int32_t reserved0;
} cul_causal_conv1d_args;
CUL_API cul_status cul_causal_conv1d(cul_stream* stream, const cul_causal_conv1d_args* args);

/* Causal long convolution: y[t] = sum_{s < L} filter[c,s] x[t-s] + skip[c] x[t] per channel, x before its first token zero
 * (Poli et al., arXiv:2302.10866; on tensor cores Fu et al., arXiv:2311.05908). x, y [B,T,C] f32 or half, y's dtype x's;
 * filter f32 [C,L], 0 <= L <= T (any L where T = 0); skip? [C] f32 or as x. y may not overlap any input. Sums are f32 and go
 * through Fourier transforms of windows that the plan chooses: the error of a channel is relative to the norms of its filter and of its
 * input, not to each y[t], and a value that is not finite reaches the outputs of its window in its own channel and in the neighbour's that it is
 * transformed with. */
typedef struct cul_conv_fft_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* filter;
  const cul_tensor* skip; /* optional */
  const cul_tensor* y;
} cul_conv_fft_args;
CUL_API cul_status cul_conv_fft(cul_stream* stream, const cul_conv_fft_args* args);

enum { CUL_GATE_ACT_SILU = 0, CUL_GATE_ACT_SIGMOID = 1 };

/* y = rms(x) * weight * act(gate), or with norm_before_gate 0: rms(x act(gate)) * weight; rms over D / groups channels at
 * a time. x, gate?, y [..., D], one dtype; weight [D] as x or f32. In place allowed.
 * Strides are free as long as rows lie in at most three dimensions: contiguous ones count as one. */
typedef struct cul_gated_rms_norm_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* gate; /* optional */
  const cul_tensor* weight;
  const cul_tensor* y;
  float eps;
  int32_t act;
  int32_t norm_before_gate;
  int32_t groups; /* 1 = over all of D */
} cul_gated_rms_norm_args;
CUL_API cul_status cul_gated_rms_norm(cul_stream* stream, const cul_gated_rms_norm_args* args);

#ifdef __cplusplus
}
#endif
#endif

/* What is done to a KV cache beside attending to it: sparse storage, page statistics, selection, merging; and the mixing of
 * queries, keys and values by convolution. Query head h uses KV head h / (Hq/Hkv). "half" is f16 or bf16. */
#ifndef CULEBRA_KV_CACHE_H
#define CULEBRA_KV_CACHE_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Keeps the `keep` channels of largest magnitude of each row of x [T,Hkv,D] (half or f32, D a multiple of 64), ties to the lower
 * channel: values [T,Hkv,keep] as x, by ascending channel, and bits i64 [T,Hkv,D/64], bit c % 64 (lsb first) of word c / 64 set
 * for a kept channel c. keep is a multiple of 8, at most D. NaN counts as larger than every number. Outputs alias nothing.
 * Mustafar, arXiv:2505.22913. */
typedef struct cul_bitmap_kv_compress_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* values;
  const cul_tensor* bits;
  int32_t keep;
  int32_t reserved0;
} cul_bitmap_kv_compress_args;
CUL_API cul_status cul_bitmap_kv_compress(cul_stream* stream, const cul_bitmap_kv_compress_args* args);

/* Attention over compressed pages followed by a dense tail, in one softmax: o = softmax(scale q k^T) v.
 * q, o [B,Sq,Hq,D]; k_values, v_values [P,page,Hkv,keep] (keep of keys and of values may differ) with k_bits, v_bits i64
 * [P,page,Hkv,D/64], as bitmap_kv_compress writes them; page_table i32 [B,maxP]; kv_len i32 [B], the compressed tokens; k_tail,
 * v_tail [B,W,Hkv,D]; tail_len i32 [B]; lse? f32 [B,Sq,Hq]. The Sq queries are the last of the kv_len + tail_len tokens, and
 * causal among themselves. split_kv_tokens 0 = tuned, > 0 = fixed. Mustafar, arXiv:2505.22913. */
typedef struct cul_bitmap_kv_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k_values;
  const cul_tensor* k_bits;
  const cul_tensor* v_values;
  const cul_tensor* v_bits;
  const cul_tensor* page_table;
  const cul_tensor* kv_len;
  const cul_tensor* k_tail;
  const cul_tensor* v_tail;
  const cul_tensor* tail_len;
  const cul_tensor* o;
  const cul_tensor* lse; /* optional */
  float scale;           /* 0 = D^-1/2 */
  int32_t split_kv_tokens;
} cul_bitmap_kv_attention_args;
CUL_API cul_status cul_bitmap_kv_attention(cul_stream* stream, const cul_bitmap_kv_attention_args* args);

/* Per page, head and channel the smallest and the largest key: page_min, page_max [P,Hkv,D] as k_cache [P,page,Hkv,D] (half or
 * f32). Of sequence b only pages that hold a token from first_token[b] to kv_len[b] - 1 are computed, anew from all of their
 * tokens before kv_len[b]; all others stay as they are. page_table i32 [B,maxP]; -1 entries are passed over. A NaN makes both NaN.
 * Quest, arXiv:2406.10774. */
typedef struct cul_kv_page_stats_args {
  cul_op_call call;
  const cul_tensor* k_cache;
  const cul_tensor* page_table;
  const cul_tensor* first_token; /* i32 [B] */
  const cul_tensor* kv_len;      /* i32 [B] */
  const cul_tensor* page_min;
  const cul_tensor* page_max;
} cul_kv_page_stats_args;
CUL_API cul_status cul_kv_page_stats(cul_stream* stream, const cul_kv_page_stats_args* args);

/* Which pages a decode step looks at. The score of a logical page is the sum over the heads of the group and the channels of
 * max(q min, q max), an upper bound of its keys' scores. The first `sink` and the last `recent` pages are forced, the others by
 * score, ties to the lower page: idx i32 [B,Hkv,topk] logical pages, ascending, -1 padded; count i32 [B,Hkv].
 * q [B,Hq,D], page_min, page_max [P,Hkv,D] half or f32; page_table i32 [B,maxP] (a page of -1 scores -inf); page_count i32 [B].
 * With q_ref as q and prev_idx i32 [B,Hkv,topk]: rows (b, KV head) whose cosine of the group's q and q_ref is at least theta
 * keep prev_idx. Quest, arXiv:2406.10774; LouisKV, arXiv:2510.11292. */
typedef struct cul_kv_select_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* page_min;
  const cul_tensor* page_max;
  const cul_tensor* page_table;
  const cul_tensor* page_count;
  const cul_tensor* q_ref;    /* optional, with prev_idx */
  const cul_tensor* prev_idx; /* optional, with q_ref */
  const cul_tensor* idx;
  const cul_tensor* count;
  int32_t topk;
  int32_t sink;
  int32_t recent;
  float theta;
} cul_kv_select_args;
CUL_API cul_status cul_kv_select(cul_stream* stream, const cul_kv_select_args* args);

/* Merges runs of neighbouring tokens with similar keys. Per sequence of cu_seqlens i32 [B+1] and head: the floor(protect L) tokens
 * of largest attn_mass f32 [T,Hkv] (ties: lower index) stay alone and end runs; token i joins the run of i-1 iff neither is
 * protected and cos(k_i, k_(i-1)) > eps. A run becomes sum_i w_i k_i, sum_i w_i v_i with w_i ~ exp(-|k_i - k_p|^2 / (2 s)), p its token
 * of largest mass, s the mean of |k_i - k_p|^2 (s = 0: equal weights). Row cu + r of merged_k, merged_v (as k [T,Hkv,D], v
 * [T,Hkv,Dv], half or f32) is the sequence's run r, origin i32 [T,Hkv] its pivot within the sequence, count i32 [B,Hkv] the
 * number of runs; rows beyond: zeros, origin -1. Outputs alias nothing. KVMerger, arXiv:2407.08454. */
typedef struct cul_kv_merge_args {
  cul_op_call call;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* attn_mass;
  const cul_tensor* cu_seqlens;
  const cul_tensor* merged_k;
  const cul_tensor* merged_v;
  const cul_tensor* origin;
  const cul_tensor* count;
  double eps;
  double protect;
} cul_kv_merge_args;
CUL_API cul_status cul_kv_merge(cul_stream* stream, const cul_kv_merge_args* args);

/* The indexer of sparse latent attention: of the keys s that query t sees, the topk of largest
 * sum_j weights[t,j] max(q[t,j] . k_s, 0), ties to the lower index. q f8e4m3 [T,64,128]; keys u8 [P,page,132], a row 128 e4m3 and an
 * f32 that scales them; weights f32 [T,64]; cu_q i32 [B+1]; page_table i32 [B,maxP]; kv_len i32 [B]. Query i of a sequence with Lq
 * of them stands at position i + kv_len - Lq and sees keys up to there. idx i32 [T,topk]: positions in the sequence, ascending,
 * -1 padded, or with `slots` page * page_size + offset in that order, as mla_attention takes them. No score matrix is stored.
 * DeepSeek-V3.2-Exp, arXiv:2512.02556. */
typedef struct cul_mla_index_topk_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* keys;
  const cul_tensor* weights;
  const cul_tensor* cu_q;
  const cul_tensor* page_table;
  const cul_tensor* kv_len;
  const cul_tensor* idx;
  int32_t topk;
  int32_t slots;
} cul_mla_index_topk_args;
CUL_API cul_status cul_mla_index_topk(cul_stream* stream, const cul_mla_index_topk_args* args);

/* Queries, keys and values of compressed convolutional attention. x = concat(x_q, x_k), C = (Hq+Hkv) D channels;
 *   y1[t,c] = conv1_b[c] + conv1_w[c,0] x[t-1,c] + conv1_w[c,1] x[t,c]
 *   y2[t,c] = conv2_b[c] + sum over i of the head: conv2_w[c,i,0] y1[t-1,i] + conv2_w[c,i,1] y1[t,i]
 *   m = (x_q + x_k of the KV head) / 2;  q = y2 + m;  k = y2 + mean of m over the group
 * then q, k *= sqrt(D) / max(norm, 1e-6), k *= temp, and RoPE on the first R channels (pairs i, i + R/2) where cos and sin are given.
 * v = concat(x_v1[t], x_v2[t-1]), split into heads. x_q [B,T,Hq D], x_k [B,T,Hkv D], x_v1, x_v2 [B,T,Hkv D/2]; conv1_w [C,2],
 * conv2_w [C,D,2], biases [C]; temp f32 [Hkv]; cos, sin f32 [B,T,R/2]; conv_state [B,C,2] = x at t-2, t-1 and v_state [B,Hkv D/2] =
 * x_v2 at t-1 before the first token (absent: zeros); q [B,T,Hq,D], k, v [B,T,Hkv,D]. half or f32, all alike. The new states
 * may be the old ones' memory. Compressed Convolutional Attention, arXiv:2510.04476. */
typedef struct cul_cca_qkv_args {
  cul_op_call call;
  const cul_tensor* x_q;
  const cul_tensor* x_k;
  const cul_tensor* x_v1;
  const cul_tensor* x_v2;
  const cul_tensor* conv1_w;
  const cul_tensor* conv1_b; /* optional */
  const cul_tensor* conv2_w;
  const cul_tensor* conv2_b; /* optional */
  const cul_tensor* temp;
  const cul_tensor* cos;        /* optional, with sin */
  const cul_tensor* sin;        /* optional, with cos */
  const cul_tensor* conv_state; /* optional, with v_state */
  const cul_tensor* v_state;    /* optional, with conv_state */
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* new_conv_state; /* optional, with new_v_state */
  const cul_tensor* new_v_state;    /* optional, with new_conv_state */
} cul_cca_qkv_args;
CUL_API cul_status cul_cca_qkv(cul_stream* stream, const cul_cca_qkv_args* args);

#ifdef __cplusplus
}
#endif
#endif

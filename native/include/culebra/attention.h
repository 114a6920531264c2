/* Softmax attention. Per score: scale, softcap c tanh(s/c), mask, softmax with exp(sink_h) in the denominator. lse is the
 * natural log, without the sink; a row that sees nothing gives o = 0, lse = -inf. Query head h uses KV head h / (Hq/Hkv).
 * Row i of a sequence stands at position i + Lk - Lq (bottom-right).
 *
 * What no row of a sequence sees - rows beyond the sequences, unused pages, keys outside every window - may hold anything, NaN too. So may a
 * masked key's k. An infinity or NaN in a *value* that some row sees shows in that row; on cuda and simt it may reach rows of the same sequence
 * and KV head that do not see it (0 times it is NaN), on cpu never. */
#ifndef CULEBRA_ATTENTION_H
#define CULEBRA_ATTENTION_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

/* q [Tq,Hq,D], k [Tk,Hkv,D], v [Tk,Hkv,Dv], o [Tq,Hq,Dv] of one dtype f16, bf16, f32; cu_q, cu_k i32 [B+1]; sink? f32 [Hq];
 * lse? f32 [Tq,Hq]. Position p sees keys p - window_left .. p + window_right (-1 = no bound); causal wins over window_right. */
typedef struct cul_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* cu_q;
  const cul_tensor* cu_k;
  const cul_tensor* sink; /* optional */
  const cul_tensor* o;
  const cul_tensor* lse; /* optional */
  float scale;           /* 0 = D^-1/2 */
  float softcap;         /* 0 = none */
  int32_t causal;
  int32_t window_left;
  int32_t window_right;
  int32_t reserved0;
} cul_attention_args;
CUL_API cul_status cul_attention(cul_stream* stream, const cul_attention_args* args);

/* q, o [B,Sq,Hq,D], Sq <= 16; k_cache, v_cache [P,page,Hkv,D] as q, or f8e4m3 with k_scale, v_scale f32 [Hkv] (value = stored *
 * scale); page_table i32 [B,maxP]; kv_len i32 [B], counting the Sq new tokens; lse? f32 [B,Sq,Hq]. Table entries past the
 * length, and of pages that the window hides completely, may be -1. split_kv_tokens 0 = tuned, > 0 = fixed. */
typedef struct cul_paged_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k_cache;
  const cul_tensor* v_cache;
  const cul_tensor* k_scale; /* f8 caches */
  const cul_tensor* v_scale; /* f8 caches */
  const cul_tensor* page_table;
  const cul_tensor* kv_len;
  const cul_tensor* sink; /* optional */
  const cul_tensor* o;
  const cul_tensor* lse; /* optional */
  float scale;           /* 0 = D^-1/2 */
  float softcap;
  int32_t causal;
  int32_t window_left;
  int32_t window_right;
  int32_t split_kv_tokens;
} cul_paged_attention_args;
CUL_API cul_status cul_paged_attention(cul_stream* stream, const cul_paged_attention_args* args);

/* Writes k [T,Hkv,D], v [T,Hkv,Dv] into the caches at slot i64 [T] = page * page_size + offset; -1 skips. With cos, sin f32
 * [T,R/2] the first R channels of k are turned first. f8 caches: round(x / scale), saturating. */
typedef struct cul_paged_append_args {
  cul_op_call call;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* slot;
  const cul_tensor* cos;     /* optional, with sin */
  const cul_tensor* sin;
  const cul_tensor* k_scale; /* f8 caches */
  const cul_tensor* v_scale; /* f8 caches */
  const cul_tensor* k_cache;
  const cul_tensor* v_cache;
  int32_t interleaved;
  int32_t reserved0;
} cul_paged_append_args;
CUL_API cul_status cul_paged_append(cul_stream* stream, const cul_paged_append_args* args);

/* o = sum_i e^(lse_i - lse) o_i, lse = ln sum_i e^lse_i: attention over the union of keys, from attention over n disjoint sets of them.
 * o [n,T,H,D] f16, bf16, f32, lse f32 [n,T,H] -> merged_o [T,H,D] as o, merged_lse? f32 [T,H]. A state with lse = -inf counts for
 * nothing, whatever its o holds; where all are -inf (or n = 0), merged_o = 0, merged_lse = -inf. Associative; outputs do not overlap
 * inputs. Milakov and Gimelshein, arXiv:1805.02867. */
typedef struct cul_merge_states_args {
  cul_op_call call;
  const cul_tensor* o;
  const cul_tensor* lse;
  const cul_tensor* merged_o;
  const cul_tensor* merged_lse; /* optional */
} cul_merge_states_args;
CUL_API cul_status cul_merge_states(cul_stream* stream, const cul_merge_states_args* args);

/* Attention over a latent cache that all heads share: keys are its 576 channels, values the first 512 of them (DeepSeek-V2,
 * arXiv:2405.04434, with the projections absorbed). q [B,Sq,Hq,576], o [B,Sq,Hq,512] f16, bf16, f32; cache [P,page,576] as q, or u8
 * [P,page,656]: 512 e4m3, 4 f32 scales of 128 channels each, 64 bf16; lse? f32 [B,Sq,Hq]; sink? f32 [Hq]. Which tokens: page_table
 * i32 [B,maxP] with kv_len i32 [B], causal among the Sq queries, the last of kv_len; or indices i32 [B,Sq,topk] = page * page_size + offset, -1
 * anywhere, of which those from topk_len i32 [B,Sq] on are ignored, if it is given, and causal says nothing. Table entries past the length may
 * be -1. split_kv_tokens as in paged_attention. */
typedef struct cul_mla_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* cache;
  const cul_tensor* page_table; /* with kv_len, or indices */
  const cul_tensor* kv_len;
  const cul_tensor* indices;
  const cul_tensor* topk_len; /* optional, with indices */
  const cul_tensor* sink;     /* optional */
  const cul_tensor* o;
  const cul_tensor* lse; /* optional */
  float scale;           /* 0 = 576^-1/2 */
  int32_t dv;            /* 512 */
  int32_t causal;
  int32_t split_kv_tokens;
} cul_mla_attention_args;
CUL_API cul_status cul_mla_attention(cul_stream* stream, const cul_mla_attention_args* args);

#ifdef __cplusplus
}
#endif
#endif

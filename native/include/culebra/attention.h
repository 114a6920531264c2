/* Softmax attention. Per score: scale, softcap c tanh(s/c), mask, softmax with exp(sink_h) in the denominator. lse is the
 * natural log, without the sink; a row that sees nothing gives o = 0, lse = -inf. Query head h uses KV head h / (Hq/Hkv).
 * Row i of a sequence stands at position i + Lk - Lq (bottom-right). */
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

#ifdef __cplusplus
}
#endif
#endif

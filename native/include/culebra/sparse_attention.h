/* Attention to a part of the keys. As in attention.h: query head h uses KV head h / (Hq/Hkv); row i of a sequence stands at
 * position i + Lk - Lq (bottom-right); lse is the natural log; a row that sees nothing gives o = 0, lse = -inf. scale 0 = D^-1/2.
 * q, k, v, o are of one dtype f16, bf16, f32; cu_* i32 [B+1] begin with 0; lse? f32. Outputs overlap no operand. */
#ifndef CULEBRA_SPARSE_ATTENTION_H
#define CULEBRA_SPARSE_ATTENTION_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

/* q [Tq,Hq,D], k [Tk,Hkv,D], v [Tk,Hkv,Dv], o [Tq,Hq,Dv], lse? [Tq,Hq]. A query block of block_q rows sees the key blocks of
 * block_k keys that its row of a CSR matrix lists: row (b Hm + m) Mb + r for sequence b, mask head m = h Hm / Hq, query block r, with
 * Hm = head_map (1, Hkv or Hq) and Mb >= ceil(max Lq / block_q) rows a sequence and mask head. row_ptr i64 [B Hm Mb + 1];
 * col i32 [nnz]: key blocks of that sequence, ascending, unique, -1 padding at the end of a row. block_q, block_k 16 to 128.
 * Guo et al., Block-Sparse-Attention, https://github.com/mit-han-lab/Block-Sparse-Attention. */
typedef struct cul_block_sparse_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* cu_q;
  const cul_tensor* cu_k;
  const cul_tensor* row_ptr;
  const cul_tensor* col;
  const cul_tensor* o;
  const cul_tensor* lse; /* optional */
  float scale;
  int32_t block_q;
  int32_t block_k;
  int32_t head_map;
  int32_t causal;
  int32_t reserved0;
} cul_block_sparse_attention_args;
CUL_API cul_status cul_block_sparse_attention(cul_stream* stream, const cul_block_sparse_attention_args* args);

/* q, o [B,*S,Hq,D], k, v [B,*S,Hkv,D], lse? [B,*S,Hq], *S of 1 to 3 axes; extra_k?, extra_v? [B,E,Hkv,D] are seen by every query.
 * On each axis of length L a query sees keys of its own residue modulo the dilation, in whose coordinates i of n: window w, stride s,
 * leader p = min(floor(i/s) s + floor(s/2), n-1), keys from clamp(p - floor(w/2), 0, n-w), w of them; causal: p = min(floor(i/s) s + s-1,
 * n-1), keys max(p-w+1, 0) to i. The axes' conditions hold together. window * dilation <= L, stride <= window. Of each list the first
 * *_entries count: one per axis, or 0 of stride, dilation, causal for 1, 1, 0 everywhere.
 * Hassani et al., Generalized Neighborhood Attention, https://arxiv.org/abs/2504.16922. */
typedef struct cul_neighborhood_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* extra_k; /* optional, with extra_v */
  const cul_tensor* extra_v;
  const cul_tensor* o;
  const cul_tensor* lse; /* optional */
  float scale;
  int32_t window_entries;
  int32_t stride_entries;
  int32_t dilation_entries;
  int32_t causal_entries;
  int32_t window[3];
  int32_t stride[3];
  int32_t dilation[3];
  int32_t causal[3];
  int32_t reserved0;
} cul_neighborhood_attention_args;
CUL_API cul_status cul_neighborhood_attention(cul_stream* stream, const cul_neighborhood_attention_args* args);

/* How much of dense attention's work that is, in tiles of query_tile queries and key_tile keys on each axis: pairs of tiles that see each
 * other, and all pairs within their dilation groups. all / visited bounds the speed-up of skipping tiles. A pure function, no device. */
typedef struct cul_neighborhood_axis {
  int32_t length;
  int32_t window;
  int32_t stride;
  int32_t dilation;
  int32_t causal;
  int32_t query_tile;
  int32_t key_tile;
  int32_t reserved0;
} cul_neighborhood_axis;
CUL_API cul_status cul_neighborhood_tiles(const cul_neighborhood_axis* axes, int32_t count, double* visited, double* all);

/* Native sparse attention. Yuan et al., https://arxiv.org/abs/2502.11089. mean: fla's dialect, blocks are averaged. linear: learned
 * compression of overlapping blocks. */
enum { CUL_NSA_MEAN = 0, CUL_NSA_LINEAR = 1 };

/* x [T,Hkv,D] -> y [Tc,Hkv,D], cu_out i32 [B+1]. Row j of a sequence of L tokens, max(0, floor((L-l)/d) + 1) of them: mean over i < l of
 * x[jd+i] + pe[i], or their sum of (x[jd+i] + pe[i]) w[i] over i < l; w [Hkv,l,D,D] (in, out), pe? [Hkv,l,D] as x. d divides l. Rows of y
 * beyond cu_out[B] are not written; Tc is at least cu_out[B], of which floor(T/d) is a bound. */
typedef struct cul_nsa_compress_args {
  cul_op_call call;
  const cul_tensor* x;
  const cul_tensor* cu_seqlens;
  const cul_tensor* w;  /* linear */
  const cul_tensor* pe; /* optional */
  const cul_tensor* y;
  const cul_tensor* cu_out;
  int32_t dialect;
  int32_t l;
  int32_t d;
  int32_t reserved0;
} cul_nsa_compress_args;
CUL_API cul_status cul_nsa_compress(cul_stream* stream, const cul_nsa_compress_args* args);

/* q, o [Tq,Hq,D], k_cmp, v_cmp [Tc,Hkv,D], lse? [Tq,Hq]; cu_k counts tokens, cu_cmp compressed keys. Compressed key j is seen iff
 * jd + l - 1 <= position. */
typedef struct cul_nsa_compressed_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k_cmp;
  const cul_tensor* v_cmp;
  const cul_tensor* cu_q;
  const cul_tensor* cu_k;
  const cul_tensor* cu_cmp;
  const cul_tensor* o;
  const cul_tensor* lse; /* optional */
  float scale;
  int32_t l;
  int32_t d;
  int32_t reserved0;
} cul_nsa_compressed_attention_args;
CUL_API cul_status cul_nsa_compressed_attention(cul_stream* stream, const cul_nsa_compressed_attention_args* args);

/* Which blocks of `block` tokens each query and KV head attends to: q [Tq,Hq,D], k_cmp [Tc,Hkv,D], lse f32 [Tq,Hq] of the compressed
 * attention -> idx i32 [Hkv,Tq,topk], ascending, -1 padded, count i32 [Hkv,Tq]. cur = position / block; blocks up to cur; the first
 * `init` and the last `local` of them are forced, the rest of topk by score, ties to the lower block. P[j] = sum over the group's heads of
 * exp(scale q.k_j - lse), 0 where j is not seen; score(b) = sum_o W[o] P[b block/d - (l/d - 1) + o], W[o] = number of (i < l/d, j <
 * block/d) with i + j = o. A score that is NaN comes last. d divides l and block; topk >= init + local. */
typedef struct cul_nsa_select_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k_cmp;
  const cul_tensor* lse;
  const cul_tensor* cu_q;
  const cul_tensor* cu_k;
  const cul_tensor* cu_cmp;
  const cul_tensor* idx;
  const cul_tensor* count;
  float scale;
  int32_t l;
  int32_t d;
  int32_t block;
  int32_t topk;
  int32_t init;
  int32_t local;
  int32_t reserved0;
} cul_nsa_select_args;
CUL_API cul_status cul_nsa_select(cul_stream* stream, const cul_nsa_select_args* args);

/* Which loop is outside: each query gathers its blocks, or each block gathers the queries that chose it (small groups). */
enum { CUL_NSA_ORDER_AUTO = 0, CUL_NSA_ORDER_QUERY = 1, CUL_NSA_ORDER_KV = 2 };

/* q [Tq,Hq,D], k [Tk,Hkv,D], v [Tk,Hkv,Dv], o [Tq,Hq,Dv], lse? [Tq,Hq]; idx i32 [Hkv,Tq,n]: blocks of `block` keys, unique, in any order, -1
 * anywhere. Causal: blocks behind the query contribute nothing. */
typedef struct cul_nsa_selected_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* cu_q;
  const cul_tensor* cu_k;
  const cul_tensor* idx;
  const cul_tensor* o;
  const cul_tensor* lse; /* optional */
  float scale;
  int32_t block;
  int32_t order;
  int32_t reserved0;
} cul_nsa_selected_attention_args;
CUL_API cul_status cul_nsa_selected_attention(cul_stream* stream, const cul_nsa_selected_attention_args* args);

/* o = sum of gate * branch, gates f32 [Tq,Hq,3] (compressed, selected, window): the three attentions above over shared queries, the
 * last to the `window` keys that end with the own one; a branch that sees nothing is 0. q [Tq,Hq,D], k [Tk,Hkv,D], v [Tk,Hkv,Dv],
 * o [Tq,Hq,Dv]. linear: k_cmp [Tc,Hkv,D], v_cmp [Tc,Hkv,Dv], cu_cmp. mean: k and v are averaged here and l = d = block; those three
 * are absent. gates' stride over heads may be 0. idx? i32 [Hkv,Tq,topk]: what was selected. */
typedef struct cul_nsa_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* cu_q;
  const cul_tensor* cu_k;
  const cul_tensor* gates;
  const cul_tensor* k_cmp;  /* linear */
  const cul_tensor* v_cmp;  /* linear */
  const cul_tensor* cu_cmp; /* linear */
  const cul_tensor* o;
  const cul_tensor* idx; /* optional */
  float scale;
  int32_t dialect;
  int32_t l;
  int32_t d;
  int32_t block;
  int32_t topk;
  int32_t init;
  int32_t local;
  int32_t window;
  int32_t reserved0;
} cul_nsa_attention_args;
CUL_API cul_status cul_nsa_attention(cul_stream* stream, const cul_nsa_attention_args* args);

/* Sparse-linear attention: per block of queries exact attention to a few critical blocks of keys, linear attention to others, nothing
 * to the rest. q, k, v, o [B,H,L,D] of one dtype; proj_w? [D,D] (out, in), proj_b? [D] as q, proj_b only with proj_w. Blocks of `block`
 * tokens, n of them; a pair's score is scale times the product of the blocks' means. In the order of falling score, ties to the lower
 * block, the first max(1, floor(critical n)) are critical, the last floor(negligible n) of the others negligible, the rest marginal.
 *   o = O_s + proj_w O_l + proj_b;  O_s = softmax(scale q k^T) v over critical blocks alone
 *   O_l = phi(q) sum phi(k) v / (phi(q) . sum phi(k) + eps), sums over the blocks that mode names; 0 where there are none
 * SLA, https://arxiv.org/abs/2509.24006. */
enum { CUL_SLA_SOFTMAX = 0, CUL_SLA_ELU1 = 1, CUL_SLA_RELU = 2 };   /* phi: over D; x + 1 for x > 0, else e^x; max(x, 0) */
enum { CUL_SLA_PAPER = 0, CUL_SLA_COMPLEMENT = 1, CUL_SLA_ALL = 2 }; /* marginal blocks; all but the critical ones; all */
typedef struct cul_sparse_linear_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* proj_w; /* optional */
  const cul_tensor* proj_b; /* optional, with proj_w */
  const cul_tensor* o;
  double critical;
  double negligible;
  float eps;
  float scale;
  int32_t block; /* 16 to 128, a multiple of 16 */
  int32_t phi;
  int32_t mode;
  int32_t reserved0;
} cul_sparse_linear_attention_args;
CUL_API cul_status cul_sparse_linear_attention(cul_stream* stream, const cul_sparse_linear_attention_args* args);

/* Causal attention to the key blocks that matter by an estimate. Operands as of block_sparse_attention; tau f32 [Hq]; kept? i64 [Hq]:
 * how many pairs of a query block and a key block were computed. Per query block of block_q rows, with `end` key blocks of block_k up to
 * its last visible key: the first ceil(sink/block_k) and the last ceil(local/block_k) are certain; m, l are a row's maximum and sum of
 * e^(s - m) over its visible keys there; another block is kept iff some estimated s in it exceeds m + ln(tau l). o and lse: exact
 * attention over certain and kept blocks. tau <= 0: a dense head; sequences of at most dense_length keys are dense too.
 * SALE, https://arxiv.org/abs/2505.24179. */
enum { CUL_ESTIMATE_INT8 = 0, CUL_ESTIMATE_FP8 = 1 };
typedef struct cul_estimated_sparse_attention_args {
  cul_op_call call;
  const cul_tensor* q;
  const cul_tensor* k;
  const cul_tensor* v;
  const cul_tensor* cu_q;
  const cul_tensor* cu_k;
  const cul_tensor* tau;
  const cul_tensor* o;
  const cul_tensor* lse;  /* optional */
  const cul_tensor* kept; /* optional */
  float scale;
  int32_t block_q; /* 16 to 128, a multiple of 16; block_k likewise */
  int32_t block_k;
  int32_t sink;
  int32_t local;
  int32_t est;
  int32_t dense_length;
  int32_t reserved0;
} cul_estimated_sparse_attention_args;
CUL_API cul_status cul_estimated_sparse_attention(cul_stream* stream, const cul_estimated_sparse_attention_args* args);

#ifdef __cplusplus
}
#endif
#endif

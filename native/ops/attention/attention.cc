#include "ops/attention/attention.h"

#include <algorithm>
#include <cmath>

#include "ops/attention/cache.h"

namespace culebra {
namespace {

// What both ops check and keep of their attributes; Args: scale, softcap, causal, window_left, window_right.
template <class Args>
void check_scores(const Call& call, const Args& args, int64_t dim, AttentionParams& p) {
  if (!std::isfinite(args.scale)) call.refuse(CUL_RANGE, "scale is %g; it must be finite", args.scale);
  if (!(args.softcap >= 0) || !std::isfinite(args.softcap))
    call.refuse(CUL_RANGE, "softcap is %g; it must be 0 (none) or more", args.softcap);
  call.flag(args.causal, "causal");
  if (args.window_left < -1)
    call.refuse(CUL_RANGE, "window_left is %d; it must be -1 (no bound) or more", args.window_left);
  if (args.window_right < -1)
    call.refuse(CUL_RANGE, "window_right is %d; it must be -1 (no bound) or more", args.window_right);
  p.scale = args.scale == 0 ? 1 / std::sqrt(static_cast<float>(dim)) : args.scale;
  p.softcap = args.softcap;
  p.causal = args.causal;
  p.window_left = args.window_left;
  p.window_right = args.window_right;
}

void check_heads(const Call& call, int64_t query_heads, int64_t kv_heads, const char* kv) {
  if (query_heads < 1 || kv_heads < 1 || query_heads % kv_heads)
    call.refuse(CUL_SHAPE, "q has %lld heads but %s has %lld; Hq must be a multiple of Hkv", ll(query_heads), kv,
                ll(kv_heads));
}

// The plan of a device with kernels; the cpu needs none.
void make_plan(const Call& call, AttentionParams& p, AttentionPlan (*plan)(const AttentionParams&, const DeviceCaps&, std::string*)) {
  if (call.caps().backend == CUL_BACKEND_CPU) return;
  if (p.dim > 256 || p.value_dim > 256)
    call.refuse(CUL_UNSUPPORTED, "D is %lld and Dv is %lld; the kernels take up to 256", ll(p.dim), ll(p.value_dim));
  std::string reason;
  p.plan = plan(p, call.caps(), &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
}

// Whether rows of n elements begin and end at multiples of `elements`.
bool aligned(const AttentionParams::Rows& x, int64_t batches, int64_t rows, int64_t heads, int64_t n, int64_t elements) {
  return n % elements == 0 && (batches <= 1 || x.batch % elements == 0) && (rows <= 1 || x.row % elements == 0) &&
         (heads <= 1 || x.head % elements == 0);
}

}  // namespace

AttentionParams check_attention(const Call& call, const cul_attention_args& args) {
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v");
  const View cu_q = call.required(args.cu_q, "cu_q"), cu_k = call.required(args.cu_k, "cu_k");
  const View sink = call.optional(args.sink, "sink");
  const View o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse");
  call.rank(q, 3, "[Tq,Hq,D]");
  call.rank(k, 3, "[Tk,Hkv,D]");
  call.rank(v, 3, "[Tk,Hkv,Dv]");
  call.rank(cu_q, 1, "[B+1]");
  call.dtype(q, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&k, &v, &o}) call.same_dtype(*x, q);
  for (const View* x : {&cu_q, &cu_k}) call.dtype(*x, {DType::i32});
  for (const View* x : {&sink, &lse})
    if (*x) call.dtype(*x, {DType::f32});

  const int64_t Hq = q[1], D = q[2], Hkv = k[1], Dv = v[2];
  call.shape(k, {-1, -1, D}, "[Tk,Hkv,D], D as q's");
  call.shape(v, {k[0], Hkv, -1}, "[Tk,Hkv,Dv], Tk and Hkv as k's");
  check_heads(call, Hq, Hkv, "k");
  if (D < 1 || Dv < 1)
    call.refuse(CUL_SHAPE, "q is %s and v is %s; heads must not be empty", shape_text(q).c_str(),
                shape_text(v).c_str());
  if (cu_q[0] < 1) call.refuse(CUL_SHAPE, "cu_q is []; it must be [B+1], beginning with 0");
  call.shape(cu_k, {cu_q[0]}, "[B+1], as cu_q");
  if (sink) call.shape(sink, {Hq}, "[Hq]");
  call.shape(o, {q[0], Hq, Dv}, "[Tq,Hq,Dv]");
  if (lse) call.shape(lse, {q[0], Hq}, "[Tq,Hq]");

  AttentionParams p;
  check_scores(call, args, D, p);
  for (const View* out : {&o, &lse})
    if (*out) call.distinct(*out);
  for (const View* out : {&o, &lse})
    for (const View* in : {&q, &k, &v, &cu_q, &cu_k, &sink}) call.disjoint(*out, *in);
  call.disjoint(lse, o);

  auto rows = [](const View& x) {
    return AttentionParams::Rows{x.data, 0, x.stride_of(0), x.rank == 3 ? x.stride_of(1) : 1};
  };
  p.op = call.op();
  p.dtype = p.cache_dtype = q.dtype;
  p.sequences = cu_q[0] - 1;
  p.query_heads = Hq;
  p.kv_heads = Hkv;
  p.dim = D;
  p.value_dim = Dv;
  p.query_rows = q[0];
  p.key_rows = k[0];
  p.q = rows(q);
  p.k = rows(k);
  p.v = rows(v);
  p.o = rows(o);
  if (lse) p.lse = rows(lse);
  p.cu_q = cu_q.as<const int32_t>();
  p.cu_k = cu_k.as<const int32_t>();
  p.sink = sink.as<const float>();
  p.batch_invariant = call.batch_invariant();
  p.validate = call.validate();
  p.aligned = aligned(p.q, 1, p.query_rows, Hq, D, 8) && aligned(p.k, 1, p.key_rows, Hkv, D, 8) &&
              aligned(p.v, 1, p.key_rows, Hkv, Dv, 8) && aligned(p.o, 1, p.query_rows, Hq, Dv, 8);
  make_plan(call, p, plan_attention);
  return p;
}

AttentionParams check_paged_attention(const Call& call, const cul_paged_attention_args& args) {
  const View q = call.required(args.q, "q");
  const View k = call.required(args.k_cache, "k_cache"), v = call.required(args.v_cache, "v_cache");
  const View k_scale = call.optional(args.k_scale, "k_scale"), v_scale = call.optional(args.v_scale, "v_scale");
  const View page_table = call.required(args.page_table, "page_table"), kv_len = call.required(args.kv_len, "kv_len");
  const View sink = call.optional(args.sink, "sink");
  const View o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse");
  call.rank(q, 4, "[B,Sq,Hq,D]");
  call.rank(k, 4, "[P,page,Hkv,D]");
  call.rank(v, 4, "[P,page,Hkv,D]");
  call.rank(page_table, 2, "[B,maxP]");
  call.dtype(q, {DType::f16, DType::bf16, DType::f32});
  check_cache_types(call, q, k, v, k_scale, v_scale);
  call.same_dtype(o, q);
  for (const View* x : {&page_table, &kv_len}) call.dtype(*x, {DType::i32});
  for (const View* x : {&sink, &lse})
    if (*x) call.dtype(*x, {DType::f32});

  const int64_t B = q[0], Sq = q[1], Hq = q[2], D = q[3], Hkv = k[2];
  call.shape(k, {-1, -1, -1, D}, "[P,page,Hkv,D], D as q's");
  call.same_shape(v, k);
  check_heads(call, Hq, Hkv, "k_cache");
  if (D < 1) call.refuse(CUL_SHAPE, "q is %s; heads must not be empty", shape_text(q).c_str());
  if (k[1] < 1) call.refuse(CUL_SHAPE, "k_cache is %s; a page must hold a token", shape_text(k).c_str());
  check_scales_shape(call, k_scale, v_scale, Hkv);
  call.shape(page_table, {B, -1}, "[B,maxP]");
  call.shape(kv_len, {B}, "[B]");
  if (sink) call.shape(sink, {Hq}, "[Hq]");
  call.same_shape(o, q);
  if (lse) call.shape(lse, {B, Sq, Hq}, "[B,Sq,Hq]");
  if (Sq > 16)
    call.refuse(CUL_UNSUPPORTED, "q is %s: %lld query tokens a sequence; at most 16", shape_text(q).c_str(), ll(Sq));

  AttentionParams p;
  check_scores(call, args, D, p);
  if (args.split_kv_tokens < 0)
    call.refuse(CUL_RANGE, "split_kv_tokens is %d; it must be 0 (tuned) or more", args.split_kv_tokens);
  for (const View* out : {&o, &lse})
    if (*out) call.distinct(*out);
  for (const View* out : {&o, &lse})
    for (const View* in : {&q, &k, &v, &k_scale, &v_scale, &page_table, &kv_len, &sink}) call.disjoint(*out, *in);
  call.disjoint(lse, o);

  auto rows = [](const View& x) {
    return AttentionParams::Rows{x.data, x.stride_of(0), x.stride_of(1), x.rank == 4 ? x.stride_of(2) : 1};
  };
  p.op = call.op();
  p.dtype = q.dtype;
  p.cache_dtype = k.dtype;
  p.sequences = B;
  p.query_heads = Hq;
  p.kv_heads = Hkv;
  p.dim = p.value_dim = D;
  p.query_rows = Sq;
  p.key_rows = page_table[1] * k[1];
  p.q = rows(q);
  p.k = rows(k);
  p.v = rows(v);
  p.o = rows(o);
  if (lse) p.lse = rows(lse);
  p.page_table = page_table.as<const int32_t>();
  p.page_table_stride = page_table.stride_of(0);
  p.page_size = k[1];
  p.pages = k[0];
  p.kv_len = kv_len.as<const int32_t>();
  p.k_scale = k_scale.as<const float>();
  p.v_scale = v_scale.as<const float>();
  p.sink = sink.as<const float>();
  p.split_kv_tokens = args.split_kv_tokens;
  p.batch_invariant = call.batch_invariant();
  p.validate = call.validate();
  p.aligned = aligned(p.q, B, Sq, Hq, D, 8) && aligned(p.o, B, Sq, Hq, D, 8) && aligned(p.k, k[0], k[1], Hkv, D, 8) &&
              aligned(p.v, k[0], k[1], Hkv, D, 8);
  make_plan(call, p, plan_paged_attention);
  return p;
}

std::string AttentionParams::invalid_text(int64_t b) const {
  if (cu_q) {
    const bool queries = !valid_starts(cu_q, b, query_rows);
    const int32_t* const cu = queries ? cu_q : cu_k;
    return format("%s[%lld] = %d after %d; it must begin with 0, never fall, and end within the %lld rows", queries ? "cu_q" : "cu_k",
                  ll(b + 1), cu[b + 1], cu[b], ll(queries ? query_rows : key_rows));
  }
  if (kv_len[b] < 0 || kv_len[b] > key_rows)
    return format("kv_len[%lld] = %d; it must be 0 to %lld, what a row of page_table addresses", ll(b), kv_len[b], ll(key_rows));
  const int32_t* const table = page_table + b * page_table_stride;
  int64_t i = visible(0, query_rows, kv_len[b]).begin / page_size;
  while (table[i] >= 0 && table[i] < pages) ++i;
  return format("page_table[%lld, %lld] = %d, a page that kv_len and the window make visible; the cache has %lld pages", ll(b), ll(i),
                table[i], ll(pages));
}

}  // namespace culebra

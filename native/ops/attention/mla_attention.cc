#include "ops/attention/mla_attention.h"

#include <algorithm>
#include <cmath>

#include "backends/backend.h"

namespace culebra {
namespace {

void check_addressing(const Call& call, const View& page_table, const View& kv_len, const View& indices, const View& topk_len) {
  if (indices && (page_table || kv_len))
    call.refuse(CUL_UNSUPPORTED, "indices and %s are both given; tokens are named by one of them", page_table ? "page_table" : "kv_len");
  if (!indices && topk_len) call.refuse(CUL_UNSUPPORTED, "topk_len is given without indices, whose entries it counts");
  if (!indices && !page_table) call.refuse(CUL_NULL_POINTER, "page_table and indices are both absent; one of them is required");
  if (page_table && !kv_len) call.refuse(CUL_NULL_POINTER, "kv_len is required with page_table");
}

}  // namespace

MlaParams check_mla_attention(const Call& call, const cul_mla_attention_args& args) {
  const View q = call.required(args.q, "q"), cache = call.required(args.cache, "cache");
  const View page_table = call.optional(args.page_table, "page_table"), kv_len = call.optional(args.kv_len, "kv_len");
  const View indices = call.optional(args.indices, "indices"), topk_len = call.optional(args.topk_len, "topk_len");
  const View sink = call.optional(args.sink, "sink");
  const View o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse");
  check_addressing(call, page_table, kv_len, indices, topk_len);
  call.rank(q, 4, "[B,Sq,Hq,576]");
  call.rank(cache, 3, "[P,page,576], or [P,page,656] of bytes");
  call.dtype(q, {DType::f16, DType::bf16, DType::f32});
  call.dtype(cache, {q.dtype, DType::u8});
  call.same_dtype(o, q);
  for (const View* x : {&page_table, &kv_len, &indices, &topk_len})
    if (*x) call.dtype(*x, {DType::i32});
  for (const View* x : {&sink, &lse})
    if (*x) call.dtype(*x, {DType::f32});

  const int64_t B = q[0], Sq = q[1], Hq = q[2];
  call.shape(q, {-1, -1, -1, kLatentDim}, "[B,Sq,Hq,576]");
  if (cache.dtype == DType::u8)
    call.shape(cache, {-1, -1, kLatentBytes}, "[P,page,656] in u8");
  else
    call.shape(cache, {-1, -1, kLatentDim}, "[P,page,576]");
  if (Hq < 1) call.refuse(CUL_SHAPE, "q is %s; there must be a head", shape_text(q).c_str());
  if (cache[1] < 1) call.refuse(CUL_SHAPE, "cache is %s; a page must hold a token", shape_text(cache).c_str());
  if (page_table) call.shape(page_table, {B, -1}, "[B,maxP]");
  if (kv_len) call.shape(kv_len, {B}, "[B]");
  if (indices) call.shape(indices, {B, Sq, -1}, "[B,Sq,topk]");
  if (topk_len) call.shape(topk_len, {B, Sq}, "[B,Sq]");
  if (sink) call.shape(sink, {Hq}, "[Hq]");
  call.shape(o, {B, Sq, Hq, kLatentValueDim}, "[B,Sq,Hq,512]");
  if (lse) call.shape(lse, {B, Sq, Hq}, "[B,Sq,Hq]");
  if (args.dv != kLatentValueDim) call.refuse(CUL_RANGE, "dv is %d; it must be 512", args.dv);
  if (!std::isfinite(args.scale)) call.refuse(CUL_RANGE, "scale is %g; it must be finite", args.scale);
  call.flag(args.causal, "causal");
  if (args.split_kv_tokens < 0) call.refuse(CUL_RANGE, "split_kv_tokens is %d; it must be 0 (tuned) or more", args.split_kv_tokens);
  for (const View* out : {&o, &lse})
    if (*out) call.distinct(*out);
  for (const View* out : {&o, &lse})
    for (const View* in : {&q, &cache, &page_table, &kv_len, &indices, &topk_len, &sink}) call.disjoint(*out, *in);
  call.disjoint(lse, o);

  const auto rows = [](const View& x) {
    return AttentionParams::Rows{x.data, x.stride_of(0), x.stride_of(1), x.rank == 4 ? x.stride_of(2) : 1};
  };
  MlaParams p;
  p.op = call.op();
  p.dtype = q.dtype;
  p.cache_dtype = cache.dtype;
  p.sequences = B;
  p.query_heads = Hq;
  p.kv_heads = 1;
  p.dim = kLatentDim;
  p.value_dim = kLatentValueDim;
  p.query_rows = Sq;
  p.q = rows(q);
  p.k = p.v = {cache.data, cache.stride_of(0), cache.stride_of(1), 0};
  p.o = rows(o);
  if (lse) p.lse = rows(lse);
  p.page_size = cache[1];
  p.pages = cache[0];
  if (page_table) {
    p.key_rows = page_table[1] * cache[1];
    p.page_table = page_table.as<const int32_t>();
    p.page_table_stride = page_table.stride_of(0);
    p.kv_len = kv_len.as<const int32_t>();
    p.causal = args.causal;
  } else {
    p.key_rows = p.topk = indices[2];
    p.indices = indices.as<const int32_t>();
    p.indices_batch = indices.stride_of(0);
    p.indices_query = indices.stride_of(1);
    p.topk_len = topk_len.as<const int32_t>();
    if (topk_len) p.topk_len_batch = topk_len.stride_of(0);
  }
  p.sink = sink.as<const float>();
  p.scale = args.scale == 0 ? 1 / std::sqrt(static_cast<float>(kLatentDim)) : args.scale;
  p.split_kv_tokens = args.split_kv_tokens;
  p.batch_invariant = call.batch_invariant();
  p.validate = call.validate();
  const int64_t cache_unit = cache.dtype == DType::u8 ? 16 : 8;
  p.aligned = p.q.batch % 8 == 0 && p.q.row % 8 == 0 && p.q.head % 8 == 0 && p.o.batch % 8 == 0 && p.o.row % 8 == 0 && p.o.head % 8 == 0 &&
              p.k.batch % cache_unit == 0 && p.k.row % cache_unit == 0;
  if (call.caps().backend == CUL_BACKEND_CPU) return p;
  std::string reason;
  p.plan = plan_mla_attention(p, call.caps(), &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

std::string MlaParams::invalid_text(int64_t i) const {
  if (!indices) return AttentionParams::invalid_text(i);
  const int64_t b = i / query_rows, s = i - b * query_rows;
  if (entries(b, s) < 0 || entries(b, s) > topk)
    return format("topk_len[%lld, %lld] = %lld; it must be 0 to %lld", ll(b), ll(s), ll(entries(b, s)), ll(topk));
  const int32_t* const list = indices + b * indices_batch + s * indices_query;
  int64_t j = 0;
  while (list[j] >= -1 && list[j] < pages * page_size) ++j;
  return format("indices[%lld, %lld, %lld] = %d; it must be -1 or a row of the cache's %lld pages of %lld", ll(b), ll(s), ll(j), list[j],
                ll(pages), ll(page_size));
}

}  // namespace culebra

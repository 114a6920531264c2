#include "ops/kv_cache/kv_select.h"

#include <cmath>

#include "backends/backend.h"

namespace culebra {

KvSelectParams check_kv_select(const Call& call, const cul_kv_select_args& args) {
  const View q = call.required(args.q, "q"), page_min = call.required(args.page_min, "page_min"),
             page_max = call.required(args.page_max, "page_max"),
             page_table = call.required(args.page_table, "page_table"),
             page_count = call.required(args.page_count, "page_count");
  const View q_ref = call.optional(args.q_ref, "q_ref"), prev_idx = call.optional(args.prev_idx, "prev_idx");
  const View idx = call.required(args.idx, "idx"), count = call.required(args.count, "count");
  if (q_ref.present != prev_idx.present)
    call.refuse(CUL_NULL_POINTER, "q_ref and prev_idx come together, but %s is absent", q_ref ? "prev_idx" : "q_ref");
  call.rank(q, 3, "[B,Hq,D]");
  call.rank(page_min, 3, "[P,Hkv,D]");
  call.rank(page_table, 2, "[B,maxP]");
  call.dtype(q, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&page_min, &page_max}) call.same_dtype(*x, q);
  if (q_ref) call.same_dtype(q_ref, q);
  for (const View* x : {&page_table, &page_count, &idx, &count}) call.dtype(*x, {DType::i32});
  if (prev_idx) call.dtype(prev_idx, {DType::i32});
  const int64_t B = q[0], Hq = q[1], D = q[2], Hkv = page_min[1];
  call.same_shape(page_max, page_min);
  call.shape(page_min, {-1, -1, D}, "[P,Hkv,D], D as q's");
  check_heads(call, Hq, Hkv, "page_min");
  call.shape(page_table, {B, -1}, "[B,maxP]");
  call.shape(page_count, {B}, "[B]");
  call.compact(page_count);
  if (args.topk < 1) call.refuse(CUL_RANGE, "topk is %d; it must be 1 or more", args.topk);
  if (args.sink < 0) call.refuse(CUL_RANGE, "sink is %d; it must be 0 or more", args.sink);
  if (args.recent < 0) call.refuse(CUL_RANGE, "recent is %d; it must be 0 or more", args.recent);
  if (int64_t{args.sink} + args.recent > args.topk)
    call.refuse(CUL_RANGE, "topk is %d; it must be at least sink + recent = %lld", args.topk,
                ll(int64_t{args.sink} + args.recent));
  if (!(args.theta >= -1 && args.theta <= 1))
    call.refuse(CUL_RANGE, "theta is %g; it must be a cosine, -1 to 1", static_cast<double>(args.theta));
  call.shape(idx, {B, Hkv, args.topk}, "[B,Hkv,topk]");
  call.shape(count, {B, Hkv}, "[B,Hkv]");
  if (q_ref) call.same_shape(q_ref, q);
  if (prev_idx) call.shape(prev_idx, {B, Hkv, args.topk}, "[B,Hkv,topk]");
  for (const View* out : {&idx, &count}) {
    call.distinct(*out);
    for (const View* in : {&q, &page_min, &page_max, &page_table, &page_count, &q_ref, &prev_idx})
      call.disjoint(*out, *in);
  }
  call.disjoint(idx, count);

  KvSelectParams p;
  p.dtype = q.dtype;
  p.sequences = B;
  p.kv_heads = Hkv;
  p.group = Hq / Hkv;
  p.dim = D;
  p.pages = page_min[0];
  p.table_pages = page_table[1];
  p.topk = args.topk;
  p.sink = args.sink;
  p.recent = args.recent;
  p.theta = args.theta;
  p.q = head_rows(q);
  if (q_ref) p.q_ref = head_rows(q_ref);
  p.page_min = head_rows(page_min);
  p.page_max = head_rows(page_max);
  p.idx = head_rows(idx);
  if (prev_idx) p.prev_idx = head_rows(prev_idx);
  p.count = count.as<int32_t>();
  p.count_stride = count.stride_of(0);
  p.page_table = page_table.as<const int32_t>();
  p.page_table_stride = page_table.stride_of(0);
  p.page_count = page_count.as<const int32_t>();
  p.validate = call.validate();
  p.aligned = D % 8 == 0 && rows_aligned(q) && rows_aligned(q_ref) && rows_aligned(page_min) && rows_aligned(page_max);
  if (call.caps().backend != CUL_BACKEND_CPU)
    p.keys = static_cast<uint32_t*>(call.workspace(static_cast<uint64_t>(B * Hkv * p.table_pages) * 4));
  return p;
}

std::string KvSelectParams::invalid_text(int64_t b) const {
  return format("sequence %lld has page_count %d; it must be 0 to %lld, and its pages of page_table -1 to %lld", ll(b),
                page_count[b], ll(table_pages), ll(pages - 1));
}

}  // namespace culebra

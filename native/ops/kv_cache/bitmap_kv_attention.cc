#include "ops/kv_cache/bitmap_kv_attention.h"

#include <algorithm>
#include <cmath>

#include "backends/backend.h"

namespace culebra {

BitmapAttentionParams check_bitmap_kv_attention(const Call& call, const cul_bitmap_kv_attention_args& args) {
  const View q = call.required(args.q, "q");
  const View k_values = call.required(args.k_values, "k_values"), k_bits = call.required(args.k_bits, "k_bits");
  const View v_values = call.required(args.v_values, "v_values"), v_bits = call.required(args.v_bits, "v_bits");
  const View page_table = call.required(args.page_table, "page_table"), kv_len = call.required(args.kv_len, "kv_len");
  const View k_tail = call.required(args.k_tail, "k_tail"), v_tail = call.required(args.v_tail, "v_tail");
  const View tail_len = call.required(args.tail_len, "tail_len");
  const View o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse");
  call.rank(q, 4, "[B,Sq,Hq,D]");
  call.rank(k_values, 4, "[P,page,Hkv,keep]");
  call.rank(page_table, 2, "[B,maxP]");
  call.rank(k_tail, 4, "[B,W,Hkv,D]");
  call.dtype(q, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&k_values, &v_values, &k_tail, &v_tail, &o}) call.same_dtype(*x, q);
  for (const View* x : {&k_bits, &v_bits}) call.dtype(*x, {DType::i64});
  for (const View* x : {&page_table, &kv_len, &tail_len}) call.dtype(*x, {DType::i32});
  if (lse) call.dtype(lse, {DType::f32});

  const int64_t B = q[0], Sq = q[1], Hq = q[2], D = q[3], pages = k_values[0], page = k_values[1], Hkv = k_values[2];
  if (D < 64 || D % 64)
    call.refuse(CUL_SHAPE, "q is %s; its last dimension must be a multiple of 64", shape_text(q).c_str());
  call.shape(v_values, {pages, page, Hkv, -1}, "[P,page,Hkv,keep], P, page and Hkv as k_values'");
  for (const View* x : {&k_values, &v_values})
    if ((*x)[3] < 8 || (*x)[3] % 8 || (*x)[3] > D)
      call.refuse(CUL_SHAPE, "%s is %s but q is %s; a row must keep a multiple of 8 channels, at most D", x->name,
                  shape_text(*x).c_str(), shape_text(q).c_str());
  for (const View* x : {&k_bits, &v_bits}) call.shape(*x, {pages, page, Hkv, D / 64}, "[P,page,Hkv,D/64]");
  check_heads(call, Hq, Hkv, "k_values");
  if (page < 1)
    call.refuse(CUL_SHAPE, "k_values is %s; a page must hold a token", shape_text(k_values).c_str());
  call.shape(page_table, {B, -1}, "[B,maxP]");
  call.shape(kv_len, {B}, "[B]");
  call.shape(k_tail, {B, -1, Hkv, D}, "[B,W,Hkv,D]");
  call.same_shape(v_tail, k_tail);
  call.shape(tail_len, {B}, "[B]");
  call.same_shape(o, q);
  if (lse) call.shape(lse, {B, Sq, Hq}, "[B,Sq,Hq]");
  if (!std::isfinite(args.scale)) call.refuse(CUL_RANGE, "scale is %g; it must be finite", args.scale);
  if (args.split_kv_tokens < 0)
    call.refuse(CUL_RANGE, "split_kv_tokens is %d; it must be 0 (tuned) or more", args.split_kv_tokens);
  for (const View* x : {&kv_len, &tail_len}) call.compact(*x);
  for (const View* out : {&o, &lse}) {
    if (!*out) continue;
    call.distinct(*out);
    for (const View* in : {&q, &k_values, &k_bits, &v_values, &v_bits, &page_table, &kv_len, &k_tail, &v_tail, &tail_len})
      call.disjoint(*out, *in);
  }
  call.disjoint(lse, o);

  BitmapAttentionParams p;
  p.dtype = q.dtype;
  p.sequences = B;
  p.queries = Sq;
  p.query_heads = Hq;
  p.kv_heads = Hkv;
  p.dim = D;
  p.key_keep = k_values[3];
  p.value_keep = v_values[3];
  p.pages = pages;
  p.page_size = page;
  p.table_pages = page_table[1];
  p.tail_rows = k_tail[1];
  p.q = head_rows(q);
  p.k_values = head_rows(k_values);
  p.k_bits = head_rows(k_bits);
  p.v_values = head_rows(v_values);
  p.v_bits = head_rows(v_bits);
  p.k_tail = head_rows(k_tail);
  p.v_tail = head_rows(v_tail);
  p.o = head_rows(o);
  if (lse) p.lse = {lse.data, lse.stride_of(0), lse.stride_of(1), 1};
  p.page_table = page_table.as<const int32_t>();
  p.page_table_stride = page_table.stride_of(0);
  p.kv_len = kv_len.as<const int32_t>();
  p.tail_len = tail_len.as<const int32_t>();
  p.scale = args.scale == 0 ? 1 / std::sqrt(static_cast<float>(D)) : args.scale;
  p.validate = call.validate();
  p.aligned = rows_aligned(q) && rows_aligned(o) && rows_aligned(k_tail) && rows_aligned(v_tail);
  if (call.caps().backend == CUL_BACKEND_CPU) {
    call.workspace(0);
    return p;
  }
  if (D > 256) call.refuse(CUL_UNSUPPORTED, "q is %s; D is at most 256 on this device", shape_text(q).c_str());
  std::string reason;
  p.plan = plan_bitmap_kv_attention(p, args.split_kv_tokens, call.batch_invariant(), call.caps().multiprocessors, &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

BitmapAttentionPlan plan_bitmap_kv_attention(const BitmapAttentionParams& p, int64_t split_kv_tokens,
                                             bool batch_invariant, int multiprocessors, std::string* reason) {
  constexpr int64_t kUnit = 64, kInvariantTokens = 1024, kLeastTokens = 256, kMostSplits = 64, kBlocksPerSm = 3;
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t rows = p.queries * p.group(), longest = p.table_pages * p.page_size + p.tail_rows;
  BitmapAttentionPlan plan;
  plan.tile_rows = p.dtype != DType::f32 && rows > 8 && p.dim <= 128 ? 16 : 8;  // more spill registers
  const int64_t blocks = p.sequences * p.kv_heads * ceil_div(rows, plan.tile_rows);
  const int64_t fixed = split_kv_tokens ? split_kv_tokens : batch_invariant ? kInvariantTokens : 0;
  if (fixed) {
    // What a row's sums are made of depends on its own length alone.
    plan.split_tokens = static_cast<int32_t>(std::min(ceil_div(fixed, kUnit) * kUnit, int64_t{1} << 30));
    plan.splits = static_cast<int32_t>(std::max<int64_t>(ceil_div(longest, plan.split_tokens), 1));
    plan.partial = true;
  } else if (blocks > 0) {
    plan.splits = static_cast<int32_t>(std::clamp<int64_t>(
        std::min(multiprocessors * kBlocksPerSm / blocks, longest / kLeastTokens), 1, kMostSplits));
    plan.partial = plan.splits > 1;
  }
  if (plan.partial)
    plan.workspace_bytes = static_cast<uint64_t>(plan.splits * p.sequences * p.queries * p.query_heads * (p.dim + 1)) * 4;
  *reason = format("%s; %lld rows a KV head in tiles of %d; ",
                   p.dtype == DType::f32 ? "FMAs (f32 uses no TF32)" : "mma.sync with tokens on the M side",
                   ll(rows), plan.tile_rows);
  *reason += !plan.partial         ? std::string("tokens not split")
             : plan.split_tokens ? format("splits of %d tokens, whatever the batch is", plan.split_tokens)
                                 : format("tokens in %d splits to fill the device", plan.splits);
  return plan;
}

std::string BitmapAttentionParams::invalid_text(int64_t b) const {
  return format(
      "sequence %lld has kv_len %d and tail_len %d; they must be 0 to %lld and 0 to %lld, and all pages of page_table up "
      "to kv_len 0 to %lld",
      ll(b), kv_len[b], tail_len[b], ll(table_pages * page_size), ll(tail_rows), ll(pages - 1));
}

}  // namespace culebra

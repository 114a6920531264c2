#include "ops/sparse_attention/nsa.h"

#include <algorithm>
#include <utility>

#include "backends/backend.h"
#include "ops/glue/rows.h"
#include "ops/sparse_attention/nsa_compress.h"
#include "ops/sparse_attention/nsa_workspace.h"

namespace culebra {
namespace {

// k_cmp and what comes with it, beside q and k as check_packed has seen them.
void keep_compressed(const Call& call, const View& k_cmp, const View& v_cmp, const View& cu_cmp, NsaParams& p) {
  check_starts(call, cu_cmp, p.sequences);
  p.k_cmp = token_rows(k_cmp);
  p.v_cmp = token_rows(v_cmp);
  p.cmp_rows = k_cmp[0];
  p.cu_cmp = cu_cmp.as<const int32_t>();
}

template <class Args>
void keep_compression(const Call& call, const Args& args, NsaParams& p) {
  check_compression(call, args.l, args.d);
  p.l = args.l;
  p.d = args.d;
}

template <class Args>
void keep_selection(const Call& call, const Args& args, NsaParams& p) {
  at_least(call, args.block, 1, "block");
  if (args.block % args.d) call.refuse(CUL_RANGE, "d is %d and block is %d; d must divide block", args.d, args.block);
  at_least(call, args.topk, 1, "topk");
  at_least(call, args.init, 0, "init");
  at_least(call, args.local, 0, "local");
  if (args.topk < int64_t{args.init} + args.local)
    call.refuse(CUL_RANGE, "topk is %d, but init %d and local %d are forced; topk must be at least their sum", args.topk,
                args.init, args.local);
  p.block = args.block;
  p.topk = args.topk;
  p.init = args.init;
  p.local = args.local;
}

void keep_idx(const Call& call, const View& idx, int64_t entries, NsaParams& p) {
  call.dtype(idx, {DType::i32});
  call.shape(idx, {p.kv_heads, p.query_rows, entries}, "[Hkv,Tq,topk]");
  p.idx = idx.as<int32_t>();
  p.idx_head = idx.stride_of(0);
  p.idx_row = idx.stride_of(1);
  p.topk = idx[2];
}

void keep_plan(const Call& call, NsaParams& p) {
  if (call.caps().backend == CUL_BACKEND_CPU) return;
  p.select = plan_select(p, call.caps().shared_bytes_per_block);
  if (p.select.queries == 0)
    call.refuse(CUL_UNSUPPORTED, "%lld compressed keys make %lld blocks of %lld tokens, whose scores do not fit in %d bytes of shared memory",
                ll(p.mean ? p.key_rows / p.l : p.cmp_rows), ll(p.select.slots), ll(p.block), call.caps().shared_bytes_per_block);
  if (call.plan_only())
    call.explain(format("%d queries share a tile of compressed keys; scores of %lld blocks each in shared memory", p.select.queries,
                        ll(p.select.slots)));
}

void keep_order(const Call& call, NsaParams& p) {
  if (call.caps().backend == CUL_BACKEND_CPU) return;
  std::string reason;
  p.selected = plan_selected(p, &reason);
  if (call.plan_only()) call.explain(std::move(reason));
}

NsaParams packed(const Call& call, const View& q, const View& k, const View& v, const View& cu_q, const View& cu_k,
                 const View& o, const View& lse, float scale) {
  NsaParams p;
  static_cast<PackedHeads&>(p) = check_packed(call, q, k, v, cu_q, cu_k, o, lse, scale);
  p.op = call.op();
  p.batch_invariant = call.batch_invariant();
  return p;
}

}  // namespace

// As many queries as fill the tile's rows, while two blocks fit on an SM of 227 KB; at least one.
SelectPlan plan_select(const NsaParams& p, int64_t shared_bytes) {
  constexpr int64_t kTwoBlocks = 112 << 10;
  const bool f32 = p.dtype == DType::f32;
  const int64_t rows = f32 ? 16 : 64, keys = f32 ? 32 : 64, dim = f32 || p.dim > 128 ? 256 : 128;
  const int64_t element = static_cast<int64_t>(size_of(p.dtype));
  const int64_t tile_bytes = (rows + keys) * (dim * element + 16) + rows * (keys + 2) * 4;
  SelectPlan plan;
  plan.slots = ((p.mean ? p.key_rows / p.l : p.cmp_rows) * p.d + p.l + p.block - 1) / p.block + 1;
  const auto fit = [&](int64_t bytes) { return (bytes - tile_bytes) / (plan.slots * 4); };
  const int64_t wanted = std::max<int64_t>(rows / p.group(), 1);
  plan.queries = static_cast<int32_t>(std::clamp<int64_t>(fit(std::min(kTwoBlocks, shared_bytes)), 1, wanted));
  if (fit(shared_bytes) < 1) plan.queries = 0;
  return plan;
}

NsaParams check_nsa_compressed_attention(const Call& call, const cul_nsa_compressed_attention_args& args) {
  const View q = call.required(args.q, "q");
  const View k_cmp = call.required(args.k_cmp, "k_cmp"), v_cmp = call.required(args.v_cmp, "v_cmp");
  const View cu_q = call.required(args.cu_q, "cu_q"), cu_k = call.required(args.cu_k, "cu_k");
  const View cu_cmp = call.required(args.cu_cmp, "cu_cmp");
  const View o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse");
  call.rank(k_cmp, 3, "[Tc,Hkv,D]");
  call.same_shape(v_cmp, k_cmp);
  NsaParams p = packed(call, q, k_cmp, v_cmp, cu_q, cu_k, o, lse, args.scale);
  keep_compressed(call, k_cmp, v_cmp, cu_cmp, p);
  keep_compression(call, args, p);
  check_outputs(call, {&o, &lse}, {&q, &k_cmp, &v_cmp, &cu_q, &cu_k, &cu_cmp});
  p.key_rows = INT32_MAX;  // the tokens themselves are not here
  return p;
}

NsaParams check_nsa_select(const Call& call, const cul_nsa_select_args& args) {
  const View q = call.required(args.q, "q"), k_cmp = call.required(args.k_cmp, "k_cmp");
  const View lse = call.required(args.lse, "lse");
  const View cu_q = call.required(args.cu_q, "cu_q"), cu_k = call.required(args.cu_k, "cu_k");
  const View cu_cmp = call.required(args.cu_cmp, "cu_cmp");
  const View idx = call.required(args.idx, "idx"), count = call.required(args.count, "count");
  NsaParams p = packed(call, q, k_cmp, View{}, cu_q, cu_k, View{}, lse, args.scale);
  keep_compressed(call, k_cmp, View{}, cu_cmp, p);
  keep_compression(call, args, p);
  keep_selection(call, args, p);
  keep_idx(call, idx, args.topk, p);
  call.dtype(count, {DType::i32});
  call.shape(count, {p.kv_heads, p.query_rows}, "[Hkv,Tq]");
  check_outputs(call, {&idx, &count}, {&q, &k_cmp, &lse, &cu_q, &cu_k, &cu_cmp});
  p.count = count.as<int32_t>();
  p.count_head = count.stride_of(0);
  p.key_rows = INT32_MAX;
  keep_plan(call, p);
  return p;
}

NsaParams check_nsa_selected_attention(const Call& call, const cul_nsa_selected_attention_args& args) {
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v");
  const View cu_q = call.required(args.cu_q, "cu_q"), cu_k = call.required(args.cu_k, "cu_k");
  const View idx = call.required(args.idx, "idx");
  const View o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse");
  NsaParams p = packed(call, q, k, v, cu_q, cu_k, o, lse, args.scale);
  at_least(call, args.block, 1, "block");
  call.one_of(args.order, {CUL_NSA_ORDER_AUTO, CUL_NSA_ORDER_QUERY, CUL_NSA_ORDER_KV}, "order");
  call.rank(idx, 3, "[Hkv,Tq,n]");
  keep_idx(call, idx, idx[2], p);
  check_outputs(call, {&o, &lse}, {&q, &k, &v, &cu_q, &cu_k, &idx});
  p.block = args.block;
  p.order = args.order;
  keep_order(call, p);
  p.workspace = call.workspace(p.selected.bytes);
  return p;
}

NsaParams check_nsa_attention(const Call& call, const cul_nsa_attention_args& args) {
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v");
  const View cu_q = call.required(args.cu_q, "cu_q"), cu_k = call.required(args.cu_k, "cu_k");
  const View gates = call.required(args.gates, "gates");
  const View k_cmp = call.optional(args.k_cmp, "k_cmp"), v_cmp = call.optional(args.v_cmp, "v_cmp");
  const View cu_cmp = call.optional(args.cu_cmp, "cu_cmp");
  const View o = call.required(args.o, "o"), idx = call.optional(args.idx, "idx");
  call.one_of(args.dialect, {CUL_NSA_MEAN, CUL_NSA_LINEAR}, "dialect");
  const bool mean = args.dialect == CUL_NSA_MEAN;
  for (const View* x : {&k_cmp, &v_cmp, &cu_cmp}) {
    if (!mean && !*x) call.refuse(CUL_NULL_POINTER, "%s is required: the dialect is linear", x->name);
    if (mean && *x) call.refuse(CUL_UNSUPPORTED, "%s is given, but the dialect is mean, which averages k and v", x->name);
  }
  NsaParams p = packed(call, q, k, v, cu_q, cu_k, o, View{}, args.scale);
  keep_compression(call, args, p);
  keep_selection(call, args, p);
  at_least(call, args.window, 1, "window");
  if (mean && (args.l != args.d || args.l != args.block))
    call.refuse(CUL_RANGE, "l is %d, d %d and block %d; with the mean dialect they must be equal", args.l, args.d,
                args.block);
  if (!mean) {
    call.same_dtype(k_cmp, q);
    call.same_dtype(v_cmp, q);
    call.shape(k_cmp, {-1, p.kv_heads, p.dim}, "[Tc,Hkv,D], Hkv and D as k's");
    call.shape(v_cmp, {k_cmp[0], p.kv_heads, p.value_dim}, "[Tc,Hkv,Dv], Tc as k_cmp's, Dv as v's");
    keep_compressed(call, k_cmp, v_cmp, cu_cmp, p);
    p.aligned = p.aligned && glue::aligned_rows({&k_cmp, &v_cmp});
  }
  call.dtype(gates, {DType::f32});
  call.shape(gates, {p.query_rows, p.query_heads, 3}, "[Tq,Hq,3]");
  if (idx) keep_idx(call, idx, args.topk, p);
  check_outputs(call, {&o, &idx}, {&q, &k, &v, &cu_q, &cu_k, &gates, &k_cmp, &v_cmp, &cu_cmp});
  p.gates = token_rows(gates);
  p.window = args.window;
  p.mean = mean;
  keep_plan(call, p);
  keep_order(call, p);
  const NsaWorkspace needs(p, call.caps().backend == CUL_BACKEND_CPU);
  p.workspace = call.workspace(needs.bytes);
  return p;
}

std::string NsaParams::invalid_text(int64_t i) const {
  if (i < sequences) {
    if (!valid_starts(cu_q, i, query_rows)) return starts_text("cu_q", cu_q, i, query_rows);
    if (!valid_starts(cu_k, i, key_rows)) return starts_text("cu_k", cu_k, i, key_rows);
    return starts_text("cu_cmp", cu_cmp, i, cmp_rows);
  }
  const int64_t h = (i - sequences) / query_rows, t = (i - sequences) - h * query_rows;
  int64_t j = 0;
  while (idx_of(h, t)[j] >= -1) ++j;
  return format("idx[%lld, %lld, %lld] = %d; it must be -1 or a block", ll(h), ll(t), ll(j), idx_of(h, t)[j]);
}

}  // namespace culebra

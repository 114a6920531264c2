#include "ops/kv_cache/mla_index_topk.h"

#include <algorithm>

#include "backends/backend.h"

namespace culebra {

IndexTopkParams check_mla_index_topk(const Call& call, const cul_mla_index_topk_args& args) {
  const View q = call.required(args.q, "q"), keys = call.required(args.keys, "keys"),
             weights = call.required(args.weights, "weights"), cu_q = call.required(args.cu_q, "cu_q"),
             page_table = call.required(args.page_table, "page_table"), kv_len = call.required(args.kv_len, "kv_len"),
             idx = call.required(args.idx, "idx");
  call.rank(q, 3, "[T,64,128]");
  call.rank(keys, 3, "[P,page,132]");
  call.rank(cu_q, 1, "[B+1]");
  call.rank(page_table, 2, "[B,maxP]");
  call.dtype(q, {DType::f8e4m3});
  call.dtype(keys, {DType::u8});
  call.dtype(weights, {DType::f32});
  for (const View* x : {&cu_q, &page_table, &kv_len, &idx}) call.dtype(*x, {DType::i32});
  call.shape(q, {-1, kIndexHeads, kIndexDim}, "[T,64,128]");
  call.shape(keys, {-1, -1, kIndexKeyBytes}, "[P,page,132]");
  if (keys[1] < 1) call.refuse(CUL_SHAPE, "keys is %s; a page must hold a token", shape_text(keys).c_str());
  call.shape(weights, {q[0], kIndexHeads}, "[T,64]");
  if (cu_q[0] < 1) call.refuse(CUL_SHAPE, "cu_q is []; it must be [B+1], beginning with 0");
  call.shape(page_table, {cu_q[0] - 1, -1}, "[B,maxP]");
  call.shape(kv_len, {cu_q[0] - 1}, "[B]");
  if (args.topk < 1) call.refuse(CUL_RANGE, "topk is %d; it must be 1 or more", args.topk);
  if (args.topk > kIndexMostKeys)
    call.refuse(CUL_UNSUPPORTED, "topk is %d; at most %lld", args.topk, ll(kIndexMostKeys));
  call.flag(args.slots, "slots");
  call.shape(idx, {q[0], args.topk}, "[T,topk]");
  for (int i = 0; i < 2; ++i)  // the scale of a key is read as one word
    if (keys[i] > 1 && keys.stride_of(i) % 4)
      call.refuse(CUL_STRIDE, "keys' stride %d is %lld bytes; it must be a multiple of 4", i, ll(keys.stride_of(i)));
  for (const View* x : {&cu_q, &kv_len}) call.compact(*x);
  call.distinct(idx);
  for (const View* in : {&q, &keys, &weights, &cu_q, &page_table, &kv_len}) call.disjoint(idx, *in);

  IndexTopkParams p;
  p.tokens = q[0];
  p.sequences = cu_q[0] - 1;
  p.pages = keys[0];
  p.page_size = keys[1];
  p.table_pages = page_table[1];
  p.topk = args.topk;
  p.q = head_rows(q);
  p.keys = {keys.data, keys.stride_of(0), keys.stride_of(1), 0};
  p.weights = weights.as<const float>();
  p.weights_stride = weights.stride_of(0);
  p.cu_q = cu_q.as<const int32_t>();
  p.page_table = page_table.as<const int32_t>();
  p.page_table_stride = page_table.stride_of(0);
  p.kv_len = kv_len.as<const int32_t>();
  p.idx = idx.as<int32_t>();
  p.idx_stride = idx.stride_of(0);
  p.slots = args.slots == 1;
  p.validate = call.validate();
  if (call.caps().backend == CUL_BACKEND_CPU) {
    call.workspace(0);
    return p;
  }
  std::string reason;
  p.plan = plan_mla_index_topk(p, call.caps().multiprocessors, &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

// The choice is exact whatever the split is: nothing about it depends on the batch.
IndexTopkPlan plan_mla_index_topk(const IndexTopkParams& p, int multiprocessors, std::string* reason) {
  constexpr int64_t kBlocksPerSm = 2, kUnit = 64;
  const int64_t longest = p.table_pages * p.page_size, least = std::max<int64_t>(2 * p.topk, 1024);
  const int64_t wanted = multiprocessors * kBlocksPerSm / std::max<int64_t>(p.tokens, 1);
  IndexTopkPlan plan;
  plan.splits = std::clamp<int64_t>(std::min(wanted, longest / least), 1, 256);
  plan.split_keys = ((longest + plan.splits - 1) / plan.splits + kUnit - 1) / kUnit * kUnit;
  if (plan.splits > 1) {
    const auto array = [&](int64_t elements) {
      const uint64_t at = plan.workspace_bytes;
      plan.workspace_bytes += static_cast<uint64_t>(elements * 4 + 255) / 256 * 256;
      return at;
    };
    plan.keys_at = array(p.tokens * plan.splits * p.topk);
    plan.positions_at = array(p.tokens * plan.splits * p.topk);
    plan.counts_at = array(p.tokens * plan.splits);
  }
  *reason = format("a query's keys in %lld pieces of up to %lld, %s", ll(plan.splits), ll(plan.split_keys),
                   plan.splits > 1 ? "to fill the multiprocessors" : "one block a query");
  return plan;
}

std::string IndexTopkParams::invalid_text(int64_t i) const {
  if (i <= sequences)
    return format("cu_q[%lld] = %d; it must begin with 0, never fall, and end within T = %lld", ll(i), cu_q[i],
                  ll(tokens));
  const int64_t b = i - sequences - 1;
  return format("sequence %lld has kv_len %d; it must be 0 to %lld, and its pages of page_table 0 to %lld", ll(b),
                kv_len[b], ll(table_pages * page_size), ll(pages - 1));
}

}  // namespace culebra

#include "ops/sparse_attention/estimated_sparse_attention.h"

#include <algorithm>

#include "backends/backend.h"
#include "ops/sparse_attention/hopper_lists.h"

namespace culebra {

EstimatedPlan plan_estimated_sparse_attention(const EstimatedParams& p, int multiprocessors, bool hopper) {
  // Lists in turn, as long as those at once fill the device: 256 KB a multiprocessor are 66 query blocks of 32 heads at 128k tokens.
  constexpr int64_t kListBytes = 256 << 10;
  EstimatedPlan plan;
  plan.slots = p.sequences ? p.query_rows / p.block_q + p.sequences : 0;
  plan.list_entries = (p.key_rows + p.block_k - 1) / p.block_k;
  const auto array = [&](int64_t elements, int64_t size) {
    const uint64_t at = plan.workspace_bytes;
    plan.workspace_bytes += static_cast<uint64_t>(elements * size + 255) / 256 * 256;
    return at;
  };
  plan.lse_at = array(p.query_rows * p.query_heads, 4);
  plan.keys_at = array(p.kv_heads * p.key_rows * p.estimate_pitch(), 1);
  plan.scales_at = array(p.kv_heads * (p.key_rows / 16 + p.sequences), 4);
  plan.slots_at_once = std::clamp<int64_t>(kListBytes * multiprocessors / std::max<int64_t>(p.query_heads * plan.list_entries * 4, 1), 1,
                                           std::max<int64_t>(plan.slots, 1));
  plan.lists_at = array(std::min(plan.slots, plan.slots_at_once) * p.query_heads * plan.list_entries, 4);
  plan.counts_at = array(std::min(plan.slots, plan.slots_at_once) * p.query_heads, 4);
  // By wgmma where heads of a group, or halves of a query block, share the keys that a tile reads; bits of its four units in shared memory.
  constexpr int64_t kMostWords = 4096;
  plan.hopper = hopper;
  plan.hopper_estimate = hopper && p.estimate_pitch() == 128 && p.group() * ((p.block_q + 63) / 64) > 1 && plan.bit_words() <= kMostWords;
  plan.bits_at = array(plan.hopper_estimate ? std::min(plan.slots, plan.slots_at_once) * p.query_heads * plan.bit_words() : 0, 4);
  return plan;
}

EstimatedParams check_estimated_sparse_attention(const Call& call, const cul_estimated_sparse_attention_args& args) {
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v"),
             cu_q = call.required(args.cu_q, "cu_q"), cu_k = call.required(args.cu_k, "cu_k"),
             tau = call.required(args.tau, "tau"), o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse"),
             kept = call.optional(args.kept, "kept");
  EstimatedParams p;
  static_cast<PackedHeads&>(p) = check_packed(call, q, k, v, cu_q, cu_k, o, lse, args.scale);
  call.dtype(tau, {DType::f32});
  call.shape(tau, {q[1]}, "[Hq]");
  if (kept) {
    call.dtype(kept, {DType::i64});
    call.shape(kept, {q[1]}, "[Hq]");
    call.compact(kept);
  }
  if (q[2] > 256 || v[2] > 256)
    call.refuse(CUL_UNSUPPORTED, "q is %s and v is %s; D and Dv are at most 256", shape_text(q).c_str(),
                shape_text(v).c_str());
  const auto block = [&](int32_t value, const char* name) {
    if (value < 16 || value > 128 || value % 16)
      call.refuse(CUL_RANGE, "%s is %d; it must be a multiple of 16 from 16 to 128", name, value);
  };
  block(args.block_q, "block_q");
  block(args.block_k, "block_k");
  at_least(call, args.sink, 0, "sink");
  at_least(call, args.local, 0, "local");
  at_least(call, args.dense_length, 0, "dense_length");
  call.one_of(args.est, {CUL_ESTIMATE_INT8, CUL_ESTIMATE_FP8}, "est");
  for (const View* x : {&cu_q, &cu_k, &tau}) call.compact(*x);
  check_outputs(call, {&o, &lse, &kept}, {&q, &k, &v, &cu_q, &cu_k, &tau});

  p.block_q = args.block_q;
  p.block_k = args.block_k;
  p.sink = args.sink;
  p.local = args.local;
  p.dense_length = args.dense_length;
  p.est = args.est;
  p.tau = tau.as<const float>();
  p.kept = kept.as<int64_t>();
  p.validate = call.validate();
  const auto aligned = [](const View& x) {
    const auto size = static_cast<int64_t>(size_of(x.dtype));
    return x[2] * size % 16 == 0 && (x[0] <= 1 || x.stride_of(0) * size % 16 == 0) &&
           (x[1] <= 1 || x.stride_of(1) * size % 16 == 0);
  };
  p.aligned = aligned(q) && aligned(k) && aligned(v) && aligned(o);
  if (call.caps().backend != CUL_BACKEND_CPU) {
    p.plan = plan_estimated_sparse_attention(p, call.caps().multiprocessors, !not_hopper_lists(list_shape(p, p.block_q, p.block_k), call.caps()));
    if (call.plan_only())
      call.explain(format("lists of %lld of %lld query blocks at a time%s", ll(p.plan.slots_at_once), ll(p.plan.slots),
                          p.plan.hopper_estimate ? "; estimate and softmax by wgmma" : p.plan.hopper ? "; softmax over them by wgmma" : ""));
    p.workspace = call.workspace(p.plan.workspace_bytes);
  } else {
    call.workspace(0);
  }
  return p;
}

std::string EstimatedParams::invalid_text(int64_t i) const {
  const bool queries = i <= sequences;
  const int64_t n = queries ? i : i - sequences - 1;
  return format("%s[%lld] = %d; it must begin with 0, never fall, and end within the %lld rows", queries ? "cu_q" : "cu_k", ll(n),
                (queries ? cu_q : cu_k)[n], ll(queries ? query_rows : key_rows));
}

}  // namespace culebra

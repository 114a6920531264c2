#include "ops/moe/moe_mlp.h"

#include <algorithm>
#include <cmath>

#include "backends/backend.h"

namespace culebra {
namespace {

// A chunk's f32 rows take about this much, so that they stay near the cache and a long prefill needs no more than a
// short one.
constexpr int64_t kChunkBytes = int64_t{64} << 20;

}  // namespace

uint64_t MoeMlpParams::workspace_bytes() const {
  const int64_t floats = chunk * width_pitch() + chunk_slots() * (width_pitch() + expert_width_pitch());
  return static_cast<uint64_t>(4 * (floats + chunk_slots() + 2 * experts + 1));
}

MoeMlpParams check_moe_mlp(const Call& call, const cul_moe_mlp_args& args) {
  call.one_of(args.experts, {CUL_EXPERTS_HALF, CUL_EXPERTS_F8, CUL_EXPERTS_INT4}, "experts");
  const int32_t storage = args.experts;
  const View x = call.required(args.x, "x"), w13 = call.required(args.w13, "w13"), w2 = call.required(args.w2, "w2");
  const View w13_scales = call.optional(args.w13_scales, "w13_scales"),
             w13_zeros = call.optional(args.w13_zeros, "w13_zeros");
  const View w2_scales = call.optional(args.w2_scales, "w2_scales"),
             w2_zeros = call.optional(args.w2_zeros, "w2_zeros");
  const View b13 = call.optional(args.b13, "b13"), b2 = call.optional(args.b2, "b2");
  const View logits = call.optional(args.logits, "logits"), route_bias = call.optional(args.route_bias, "route_bias");
  if (logits && (args.weights || args.ids))
    call.refuse(CUL_UNSUPPORTED, "logits is given, so %s must not be: the routing makes them", args.weights ? "weights" : "ids");
  if (!logits && route_bias) call.refuse(CUL_NULL_POINTER, "logits is required with route_bias");
  const View weights = logits ? View{} : call.required(args.weights, "weights"),
             ids = logits ? View{} : call.required(args.ids, "ids");
  const View y = call.required(args.y, "y");
  check_expert_scales(call, storage, w13_scales, w13_zeros);
  check_expert_scales(call, storage, w2_scales, w2_zeros);
  call.rank(x, 2, "[T,D]");
  call.rank(w13, 3, "[E,2I,D]");
  call.rank(w2, 3, "[E,D,I]");
  if (!logits) call.rank(ids, 2, "[T,k]");
  call.dtype(x, {DType::f16, DType::bf16});
  for (const View* v : {&b13, &b2, &y})
    if (*v) call.same_dtype(*v, x);
  if (!logits) {
    call.dtype(weights, {DType::f32});
    call.dtype(ids, {DType::i32});
  }
  if (storage == CUL_EXPERTS_INT4) call.one_of(args.group, {-1, 32, 64, 128}, "group");

  const int64_t T = x[0], D = x[1], E = w13[0], k = logits ? int64_t{args.k} + args.n_shared : ids[1];
  if (w13[1] % 2)
    call.refuse(CUL_SHAPE, "w13 is %s; its second dimension is gate and up rows, an even number",
                shape_text(w13).c_str());
  const int64_t I = w13[1] / 2;
  MoeMlpParams p;
  p.w13 = check_experts(call, storage, args.group, x.dtype, w13, w13_scales, w13_zeros, E, 2 * I, D,
                        "[E,2I,D], D as x's (int4: half of it)");
  p.w2 = check_experts(call, storage, args.group, x.dtype, w2, w2_scales, w2_zeros, E, D, I,
                       "[E,D,I], D as x's, E and I as w13's (int4: half of I)");
  if (b13) call.shape(b13, {E, 2 * I}, "[E,2I]");
  if (b2) call.shape(b2, {E, D}, "[E,D]");
  if (logits) {
    p.routed = true;
    p.route = check_routing(call, logits, route_bias,
                            {args.k, args.score, args.n_group, args.topk_group, args.renormalize, args.n_shared, args.scale});
    call.shape(logits, {T, E - args.n_shared}, "[T, E - n_shared], T as x's and E as w13's");
  } else {
    call.shape(ids, {T, -1}, "[T,k]");
    call.same_shape(weights, ids);
  }
  call.same_shape(y, x);
  call.one_of(args.act, {CUL_MOE_ACT_SILU, CUL_MOE_ACT_GELU, CUL_MOE_ACT_SWIGLU_OAI}, "act");
  if (args.act == CUL_MOE_ACT_SWIGLU_OAI) {
    if (!std::isfinite(args.alpha)) call.refuse(CUL_RANGE, "alpha is %g; it must be finite", args.alpha);
    if (!(args.limit > 0)) call.refuse(CUL_RANGE, "limit is %g; it must be above 0", args.limit);
  }
  call.distinct(y);
  for (const View* in : {&x, &w13, &w13_scales, &w13_zeros, &w2, &w2_scales, &w2_zeros, &b13, &b2, &weights, &ids, &logits, &route_bias})
    call.disjoint(y, *in);

  p.dtype = x.dtype;
  p.x = x.data;
  p.x_stride = x.stride_of(0);
  p.y = y.data;
  p.y_stride = y.stride_of(0);
  p.b13 = b13.data;
  p.b13_stride = b13 ? b13.stride_of(0) : 0;
  p.b2 = b2.data;
  p.b2_stride = b2 ? b2.stride_of(0) : 0;
  p.weights = weights.as<const float>();
  p.weights_stride = weights.stride_of(0);
  p.ids = ids.as<const int32_t>();
  p.ids_stride = ids.stride_of(0);
  if (storage == CUL_EXPERTS_INT4 && args.group > 0) p.group_bits = args.group == 32 ? 5 : args.group == 64 ? 6 : 7;
  p.tokens = T;
  p.slots_per_token = k;
  p.width = D;
  p.expert_width = I;
  p.experts = E;
  p.act = args.act;
  p.alpha = args.alpha;
  p.limit = args.limit;
  p.validate = call.validate();
  p.batch_invariant = call.batch_invariant();
  // Where a routing's results go, unless one kernel does all: the beginning of `workspace`.
  const auto keep_routing = [&](void* workspace) {
    if (!p.routed || !workspace) return;
    p.weights = p.route.weights = static_cast<float*>(workspace);
    p.ids = p.route.ids = reinterpret_cast<int32_t*>(p.route.weights + T * k);
    p.weights_stride = p.ids_stride = p.route.weights_stride = p.route.ids_stride = k;
  };
  const uint64_t routing_bytes = p.routed ? static_cast<uint64_t>((8 * T * k + 255) / 256 * 256) : 0;
  const auto after_routing = [&](void* workspace) { return workspace ? static_cast<char*>(workspace) + routing_bytes : nullptr; };
  if (call.caps().backend == CUL_BACKEND_CPU) {
    const int64_t token_bytes = 4 * (p.width_pitch() + k * (p.width_pitch() + p.expert_width_pitch())) + 1;
    p.chunk = std::min(T, std::max<int64_t>(kChunkBytes / token_bytes, 16));
    void* const workspace = call.workspace(T == 0 ? 0 : routing_bytes + p.workspace_bytes());
    keep_routing(workspace);
    p.workspace = after_routing(workspace);
    return p;
  }
  if (T * k > INT32_MAX / 2)
    call.refuse(CUL_UNSUPPORTED, "x is %s with %lld slots a token; at most %d slots at once", shape_text(x).c_str(), static_cast<long long>(k),
                INT32_MAX / 2);
  std::string reason;
  p.decode = plan_moe_decode(p, call.caps(), &reason);
  if (p.decode.suits) {
    if (call.plan_only()) call.explain(reason);
    p.workspace = call.workspace(p.decode.workspace_bytes);
    return p;
  }
  std::string many;
  const uint64_t bytes = routing_bytes + plan_moe_mlp_many(p, call.caps(), nullptr, &many).workspace_bytes;
  if (call.plan_only()) call.explain(reason + "; " + many);
  void* const workspace = call.workspace(bytes);
  keep_routing(workspace);
  p.many = plan_moe_mlp_many(p, call.caps(), after_routing(workspace), &many);
  return p;
}

std::string MoeMlpIds::invalid_text(int64_t slot) const {
  return format("ids[%lld, %lld] = %d; it must be -1 or below the %lld experts", static_cast<long long>(slot / k),
                static_cast<long long>(slot % k), id(slot), static_cast<long long>(experts));
}

}  // namespace culebra

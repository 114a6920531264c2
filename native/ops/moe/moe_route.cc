#include "ops/moe/moe_route.h"

#include <algorithm>
#include <cmath>

namespace culebra {

MoeRouteParams check_routing(const Call& call, const View& logits, const View& bias, const RoutingAttributes& args) {
  call.rank(logits, 2, "[T,E]");
  call.dtype(logits, {DType::f32, DType::f16, DType::bf16});
  if (bias) call.dtype(bias, {DType::f32});
  const int64_t experts = logits[1];
  const auto e = static_cast<long long>(experts);
  if (bias) call.shape(bias, {experts}, "[E]");
  if (experts > MoeRouteParams::kMaxExperts)
    call.refuse(CUL_UNSUPPORTED, "logits is %s: %lld experts; at most %lld", shape_text(logits).c_str(), e,
                static_cast<long long>(MoeRouteParams::kMaxExperts));
  if (args.k < 1 || args.k > std::min(experts, MoeRouteParams::kMaxSelected))
    call.refuse(CUL_RANGE, "k is %d; it must be 1 to %lld, with %lld experts", args.k,
                static_cast<long long>(std::min(experts, MoeRouteParams::kMaxSelected)), e);
  call.one_of(args.score, {CUL_SCORE_SOFTMAX, CUL_SCORE_SIGMOID}, "score");
  if (args.n_group < 1 || experts % args.n_group)
    call.refuse(CUL_RANGE, "n_group is %d; it must divide the %lld experts", args.n_group, e);
  if (args.topk_group < 1 || args.topk_group > args.n_group)
    call.refuse(CUL_RANGE, "topk_group is %d; it must be 1 to n_group = %d", args.topk_group, args.n_group);
  if (args.k > experts / args.n_group * args.topk_group)
    call.refuse(CUL_RANGE, "k is %d, but topk_group = %d groups of %lld experts have only %lld", args.k,
                args.topk_group, static_cast<long long>(experts / args.n_group),
                static_cast<long long>(experts / args.n_group * args.topk_group));
  call.flag(args.renormalize, "renormalize");
  if (args.n_shared < 0) call.refuse(CUL_RANGE, "n_shared is %d; it must be 0 or more", args.n_shared);
  if (!std::isfinite(args.scale)) call.refuse(CUL_RANGE, "scale is %g; it must be finite", args.scale);

  MoeRouteParams p;
  p.dtype = logits.dtype;
  p.logits = logits.data;
  p.logits_stride = logits.stride_of(0);
  p.bias = bias.as<const float>();
  p.tokens = logits[0];
  p.experts = experts;
  p.k = args.k;
  p.groups = args.n_group;
  p.kept_groups = args.topk_group;
  p.shared = args.n_shared;
  p.sigmoid = args.score == CUL_SCORE_SIGMOID;
  p.renormalize = args.renormalize;
  p.scale = args.scale;
  return p;
}

MoeRouteParams check_moe_route(const Call& call, const cul_moe_route_args& args) {
  const View logits = call.required(args.logits, "logits"), bias = call.optional(args.bias, "bias");
  const View weights = call.required(args.weights, "weights"), ids = call.required(args.ids, "ids");
  MoeRouteParams p = check_routing(call, logits, bias,
                                   {args.k, args.score, args.n_group, args.topk_group, args.renormalize, args.n_shared, args.scale});
  call.dtype(weights, {DType::f32});
  call.dtype(ids, {DType::i32});
  const int64_t columns = int64_t{args.k} + args.n_shared;
  call.shape(weights, {logits[0], columns}, "[T, k + n_shared]");
  call.shape(ids, {logits[0], columns}, "[T, k + n_shared]");
  for (const View* out : {&weights, &ids}) {
    call.distinct(*out);
    for (const View* in : {&logits, &bias}) call.disjoint(*out, *in);
  }
  call.disjoint(ids, weights);
  p.weights = weights.as<float>();
  p.weights_stride = weights.stride_of(0);
  p.ids = ids.as<int32_t>();
  p.ids_stride = ids.stride_of(0);
  return p;
}

}  // namespace culebra

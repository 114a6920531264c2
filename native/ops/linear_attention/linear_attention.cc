#include "ops/linear_attention/linear_attention.h"

#include <cmath>

#include "ops/linear_attention/recurrence_check.h"

namespace culebra {

static_assert(static_cast<int>(FeatureMap::elu1) == CUL_FEATURES_ELU1 &&
              static_cast<int>(FeatureMap::relu) == CUL_FEATURES_RELU &&
              static_cast<int>(FeatureMap::squared_relu) == CUL_FEATURES_SQUARED_RELU &&
              static_cast<int>(FeatureMap::hedgehog) == CUL_FEATURES_HEDGEHOG &&
              static_cast<int>(FeatureMap::taylor2) == CUL_FEATURES_TAYLOR2);

LinearAttentionParams check_linear_attention(const Call& call, const cul_linear_attention_args& args) {
  call.one_of(args.feature_map,
              {CUL_FEATURES_NONE, CUL_FEATURES_ELU1, CUL_FEATURES_RELU, CUL_FEATURES_SQUARED_RELU,
               CUL_FEATURES_HEDGEHOG, CUL_FEATURES_TAYLOR2},
              "feature_map");
  call.flag(args.normalize, "normalize");
  call.flag(args.causal, "causal");
  if (!(args.eps >= 0) || !std::isfinite(args.eps))
    call.refuse(CUL_RANGE, "eps is %g; it must be 0 or more", static_cast<double>(args.eps));
  const RecurrenceViews x = gather_recurrence(call, args);
  const View z = call.optional(args.z_state, "z_state"), final_z = call.optional(args.final_z_state, "final_z_state");
  if (!args.normalize && (z || final_z))
    call.refuse(CUL_UNSUPPORTED, "%s is given, but only normalize has it", z ? z.name : final_z.name);
  if (args.normalize && x.initial && !z) call.refuse(CUL_NULL_POINTER, "z_state is required with initial_state");
  if (z && !x.initial) call.refuse(CUL_NULL_POINTER, "initial_state is required with z_state");

  const auto features = static_cast<FeatureMap>(args.feature_map);
  call.rank(x.q, 4, "[B,T,H,K]");
  // Computed from K as it is: check_recurrence_views bounds K.
  RecurrenceLimits limits;
  limits.state_columns = feature_dim(features, x.q[3] > 256 ? 256 : x.q[3]);
  LinearAttentionParams p;
  static_cast<RecurrenceParams&>(p) = check_recurrence_views(call, x, Decay::none, GateMode::log, args.scale,
                                                             args.state_layout, args.checkpoint_every, limits);
  p.features = features;
  p.normalize = args.normalize;
  p.causal = args.causal;
  p.eps = args.eps;
  for (const View* s : {&z, &final_z}) {
    if (!*s) continue;
    call.dtype(*s, {DType::f32});
    call.shape(*s, {-1, p.key_heads, p.features_dim()}, "[N,H,F], F = K behind the feature map");
    if ((*s)[0] != p.sequences.state_rows)
      call.refuse(CUL_SHAPE, "%s is %s but there are %lld states; its first dimension must be as many", s->name,
                  shape_text(*s).c_str(), static_cast<long long>(p.sequences.state_rows));
  }
  check_recurrence_overlaps(call, x, {&z});
  if (final_z) {
    call.distinct(final_z);
    for (const View* in : {&x.q, &x.k, &x.v, &x.cu_seqlens, &x.read_index, &x.write_index, &x.initial})
      call.disjoint(final_z, *in);
    for (const View* out : {&x.o, &x.final, &x.checkpoints}) call.disjoint(*out, final_z);
    call.disjoint(final_z, z, true);
  }
  auto vectors = [](const View& v) {
    return v ? RecurrenceParams::Vectors{v.as<float>(), v.stride_of(0), v.stride_of(1)} : RecurrenceParams::Vectors{};
  };
  p.initial_z = vectors(z);
  p.final_z = vectors(final_z);
  const uint64_t divisors = static_cast<uint64_t>(p.batch * p.sequences.tokens * p.key_heads);
  p.divisor = static_cast<float*>(call.workspace(p.normalize ? divisors * sizeof(float) : 0));
  return p;
}

}  // namespace culebra

#include "ops/linear_attention/linear_attention.h"

#include <cmath>

#include "backends/backend.h"
#include "ops/linear_attention/recurrence_check.h"

namespace culebra {

static_assert(static_cast<int>(FeatureMap::elu1) == CUL_FEATURES_ELU1 &&
              static_cast<int>(FeatureMap::relu) == CUL_FEATURES_RELU &&
              static_cast<int>(FeatureMap::squared_relu) == CUL_FEATURES_SQUARED_RELU &&
              static_cast<int>(FeatureMap::hedgehog) == CUL_FEATURES_HEDGEHOG &&
              static_cast<int>(FeatureMap::taylor2) == CUL_FEATURES_TAYLOR2);

NormaliserParams LinearAttentionParams::normaliser() const {
  const RecurrenceParams mapped = inner();
  NormaliserParams n;
  n.sequences = sequences;
  n.slots = slots;
  n.heads = key_heads;
  n.columns = mapped.key_dim;
  n.dtype = dtype;
  n.q = mapped.q;
  n.k = mapped.k;
  n.initial = initial_z;
  n.final = final_z;
  n.scale = scale;
  n.eps = eps;
  n.causal = causal;
  n.factor = divisor;
  n.sums = chunk_sums;
  n.decays = chunk_decays;
  n.ends = z_ends;
  return n;
}

RecurrenceParams LinearAttentionParams::inner() const {
  RecurrenceParams r = *this;
  r.key_dim = features_dim();
  if (features != FeatureMap::none) {
    const int64_t head = r.key_dim, token = key_heads * head;
    r.q = {q_features, sequences.tokens * token, token, head};
    r.k = {k_features, sequences.tokens * token, token, head};
  }
  r.query_factor = normalize ? divisor : nullptr;
  return r;
}

RecurrenceParams::States LinearAttentionParams::work_states() const {
  const int64_t F = features_dim(), head = value_dim * F;
  return {own_states, value_heads * head, head, F, 1, 0};
}

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
  WorkspaceParts parts;
  const bool device = call.caps().backend != CUL_BACKEND_CPU, mapped = features != FeatureMap::none && !p.wide();
  const uint64_t rows = static_cast<uint64_t>(p.batch * p.sequences.tokens * p.key_heads);
  const uint64_t F = static_cast<uint64_t>(p.features_dim());
  p.slots = ChunkLayout::slots_of(p.sequences.tokens, p.sequences.count, p.sequences.cu_seqlens != nullptr, kChunk);
  const uint64_t chunks = p.normalize && !p.wide() ? static_cast<uint64_t>(p.slots * p.key_heads) : 0;
  const uint64_t state_rows = static_cast<uint64_t>(p.sequences.state_rows);
  const uint64_t z_bytes = state_rows * static_cast<uint64_t>(p.key_heads) * F * sizeof(float);
  const bool own_states = !x.final && (p.wide() || !p.causal), own_z = p.wide() && p.normalize && !final_z;
  const auto part = [&](bool needed, uint64_t bytes) { return parts.add(needed ? bytes : 0); };
  const uint64_t divisor = part(p.normalize, rows * sizeof(float));
  const uint64_t q_features = part(device && mapped, rows * F * size_of(p.dtype));
  const uint64_t k_features = part(device && mapped, rows * F * size_of(p.dtype));
  const uint64_t chunk_sums = part(device, chunks * F * sizeof(float)), chunk_decays = part(device, chunks * sizeof(float));
  const uint64_t z_ends = part(device && chunks && !p.causal,
                               static_cast<uint64_t>(p.sequences.count * p.key_heads) * F * sizeof(float));
  const uint64_t zeros = part(device && !p.causal, F * size_of(p.dtype));
  const uint64_t states = part(device && own_states, state_rows * static_cast<uint64_t>(p.value_heads * p.value_dim) * F * sizeof(float));
  const uint64_t z_part = part(device && own_z, z_bytes);
  void* own;
  if (device && !p.wide()) {
    const OwnWorkspace space = plan_recurrence(call, p.inner(), parts.bytes());
    p.plan = space.plan;
    own = space.own;
  } else {
    own = call.workspace(parts.bytes());
    if (device && call.plan_only()) call.explain("linear_attention: token by token, states in memory: F above 256 or taylor2");
  }
  p.divisor = WorkspaceParts::at<float>(own, divisor);
  p.q_features = WorkspaceParts::at<char>(own, q_features);
  p.k_features = WorkspaceParts::at<char>(own, k_features);
  p.chunk_sums = WorkspaceParts::at<float>(own, chunk_sums);
  p.chunk_decays = WorkspaceParts::at<float>(own, chunk_decays);
  if (device && !p.causal) {
    p.z_ends = WorkspaceParts::at<float>(own, z_ends);
    p.zeros = WorkspaceParts::at<char>(own, zeros);
  }
  if (device && own_states) p.own_states = WorkspaceParts::at<float>(own, states);
  if (device && own_z) p.own_z = WorkspaceParts::at<float>(own, z_part);
  return p;
}

}  // namespace culebra

#include "ops/linear_attention/mlstm.h"

#include <cmath>

#include "backends/backend.h"
#include "ops/linear_attention/recurrence_check.h"

namespace culebra {
namespace {

constexpr int64_t kMaxValueDim = 512;

void check_attributes(const Call& call, const cul_mlstm_args& args) {
  call.one_of(args.input_gate, {CUL_INPUT_GATE_EXP, CUL_INPUT_GATE_SIGMOID}, "input_gate");
  call.flag(args.normalize, "normalize");
  if (!(args.eps >= 0) || !std::isfinite(args.eps))
    call.refuse(CUL_RANGE, "eps is %g; it must be 0 or more", static_cast<double>(args.eps));
  if (!(args.soft_cap >= 0) || !std::isfinite(args.soft_cap))
    call.refuse(CUL_RANGE, "soft_cap is %g; it must be 0 or more", static_cast<double>(args.soft_cap));
  if (args.input_gate == CUL_INPUT_GATE_EXP && !args.normalize)
    call.refuse(CUL_UNSUPPORTED, "input_gate exp needs normalize: without it nothing cancels the stabiliser m");
}

// C, n and m come together: those of them that this call has.
void check_states_together(const Call& call, const cul_mlstm_args& args, bool n, bool m) {
  struct State {
    const cul_tensor* tensor;
    const char* name;
    bool used;
  };
  const State states[] = {{args.initial_state, "initial_state", true}, {args.n_state, "n_state", n},
                          {args.m_state, "m_state", m}};
  const State finals[] = {{args.final_n_state, "final_n_state", n}, {args.final_m_state, "final_m_state", m}};
  const State* given = nullptr;
  for (const State& s : states) {
    if (s.tensor && !s.used) call.refuse(CUL_UNSUPPORTED, "%s is given, but this call has no such state", s.name);
    if (s.tensor) given = &s;
  }
  for (const State& s : finals)
    if (s.tensor && !s.used) call.refuse(CUL_UNSUPPORTED, "%s is given, but this call has no such state", s.name);
  for (const State& s : states)
    if (given && s.used && !s.tensor) call.refuse(CUL_NULL_POINTER, "%s is required with %s", s.name, given->name);
}

}  // namespace

NormaliserParams MlstmParams::normaliser() const {
  NormaliserParams n;
  n.sequences = sequences;
  n.slots = slots;
  n.heads = key_heads;
  n.columns = key_dim;
  n.dtype = dtype;
  n.q = q;
  n.k = k;
  n.gate = decays;
  n.weight = weights;
  n.least = least;
  n.initial = initial_n;
  n.final = final_n;
  n.scale = scale;
  n.eps = eps;
  n.factor = divisor;
  n.sums = chunk_sums;
  n.decays = chunk_decays;
  return n;
}

RecurrenceParams MlstmParams::inner() const {
  RecurrenceParams r = *this;
  r.decay = Decay::token;
  r.gate = {decays, sequences.tokens * key_heads, key_heads, 1};
  r.key_factor = weights;
  r.query_factor = normalize ? divisor : nullptr;
  return r;
}

MlstmParams check_mlstm(const Call& call, const cul_mlstm_args& args) {
  check_attributes(call, args);
  const RecurrenceViews x = gather_recurrence(call, args);
  const View i = call.required(args.i, "i"), f = call.required(args.f, "f");
  const bool exponential = args.input_gate == CUL_INPUT_GATE_EXP;
  check_states_together(call, args, args.normalize, exponential);
  const View n = call.optional(args.n_state, "n_state"), final_n = call.optional(args.final_n_state, "final_n_state");
  const View m = call.optional(args.m_state, "m_state"), final_m = call.optional(args.final_m_state, "final_m_state");
  for (const View* gate : {&i, &f}) {
    call.rank(*gate, 3, "[B,T,H]");
    call.dtype(*gate, {DType::f32});
  }
  RecurrenceLimits limits;
  limits.value_dim = kMaxValueDim;
  MlstmParams p;
  static_cast<RecurrenceParams&>(p) = check_recurrence_views(call, x, Decay::none, GateMode::log, args.scale,
                                                             args.state_layout, args.checkpoint_every, limits);
  if (p.key_heads != p.value_heads)
    call.refuse(CUL_SHAPE, "v has %lld heads but q and k have %lld; they must be as many",
                static_cast<long long>(p.value_heads), static_cast<long long>(p.key_heads));
  for (const View* gate : {&i, &f}) call.shape(*gate, {p.batch, p.sequences.tokens, p.key_heads}, "[B,T,H]");
  for (const View* s : {&n, &final_n, &m, &final_m}) {
    if (!*s) continue;
    call.dtype(*s, {DType::f32});
    const bool vector = s == &n || s == &final_n;
    if (vector) call.shape(*s, {-1, p.key_heads, p.key_dim}, "[N,H,K]");
    if (!vector) call.shape(*s, {-1, p.key_heads}, "[N,H]");
    if ((*s)[0] != p.sequences.state_rows)
      call.refuse(CUL_SHAPE, "%s is %s but there are %lld states; its first dimension must be as many", s->name,
                  shape_text(*s).c_str(), static_cast<long long>(p.sequences.state_rows));
  }

  check_recurrence_overlaps(call, x, {&i, &f, &n, &m});
  for (const auto& [out, same, other] : {std::tuple{&final_n, &n, &m}, std::tuple{&final_m, &m, &n}}) {
    if (!*out) continue;
    call.distinct(*out);
    for (const View* in : {&x.q, &x.k, &x.v, &i, &f, &x.cu_seqlens, &x.read_index, &x.write_index, &x.initial, other})
      call.disjoint(*out, *in);
    for (const View* written : {&x.o, &x.final, &x.checkpoints}) call.disjoint(*written, *out);
    call.disjoint(*out, *same, true);
  }
  call.disjoint(final_n, final_m);

  p.input = recurrence_heads(i);
  p.forget = recurrence_heads(f);
  p.exponential = exponential;
  p.normalize = args.normalize;
  p.eps = args.eps;
  p.soft_cap = args.soft_cap;
  auto vectors = [](const View& v, int64_t head) {
    return v ? RecurrenceParams::Vectors{v.as<float>(), v.stride_of(0), head} : RecurrenceParams::Vectors{};
  };
  p.initial_n = vectors(n, n.stride_of(1));
  p.final_n = vectors(final_n, final_n.stride_of(1));
  p.initial_m = vectors(m, 1);
  p.final_m = vectors(final_m, 1);
  WorkspaceParts parts;
  const bool device = call.caps().backend != CUL_BACKEND_CPU;
  const uint64_t each = static_cast<uint64_t>(p.batch * p.sequences.tokens * p.key_heads) * sizeof(float);
  p.slots = ChunkLayout::slots_of(p.sequences.tokens, p.sequences.count, p.sequences.cu_seqlens != nullptr, kChunk);
  const uint64_t chunks = device && p.normalize ? static_cast<uint64_t>(p.slots * p.key_heads) * sizeof(float) : 0;
  const uint64_t decays = parts.add(each), weights = parts.add(each), divisor = parts.add(each);
  const uint64_t least = parts.add(device ? each : 0), chunk_decays = parts.add(chunks);
  const uint64_t shifts = parts.add(device && exponential ? static_cast<uint64_t>(p.slots * p.key_heads) * sizeof(MlstmParams::Shift) : 0);
  const uint64_t chunk_sums = parts.add(chunks * static_cast<uint64_t>(p.key_dim));
  const OwnWorkspace space = plan_recurrence(call, p.inner(), parts.bytes());
  p.plan = space.plan;
  p.decays = WorkspaceParts::at<float>(space.own, decays);
  p.weights = WorkspaceParts::at<float>(space.own, weights);
  p.divisor = WorkspaceParts::at<float>(space.own, divisor);
  p.least = WorkspaceParts::at<float>(space.own, least);
  p.chunk_decays = WorkspaceParts::at<float>(space.own, chunk_decays);
  p.shifts = WorkspaceParts::at<MlstmParams::Shift>(space.own, shifts);
  p.chunk_sums = WorkspaceParts::at<float>(space.own, chunk_sums);
  return p;
}

}  // namespace culebra

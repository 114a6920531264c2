#include "ops/linear_attention/mixture_of_memories.h"

#include "backends/backend.h"
#include "ops/linear_attention/recurrence_check.h"

namespace culebra {
namespace {

// Takes the slot axis out of a tensor: slot 0 remains. Returns what a slot is away from the one before.
int64_t take_slots(const Call& call, View& x, int64_t slots, const char* text) {
  if (x[2] != slots)
    call.refuse(CUL_SHAPE, "%s is %s; it must be %s, with %lld slots as ids has", x.name, shape_text(x).c_str(), text,
                static_cast<long long>(slots));
  const int64_t stride = x.stride_of(2);
  for (int i = 2; i + 1 < x.rank; ++i) {
    x.shape[static_cast<size_t>(i)] = x[i + 1];
    x.stride[static_cast<size_t>(i)] = x.stride_of(i + 1);
  }
  --x.rank;
  return stride;
}

}  // namespace

RecurrenceParams MixtureOfMemoriesParams::inner() const {
  RecurrenceParams r = *this;
  r.sequences = {sequences.count * memories, entries(), gathered.begins, gathered.read_rows, gathered.write_rows,
                 sequences.state_rows * memories};
  r.batch = 1;
  r.q = {gathered.q, 0, key_heads * key_dim, key_dim};
  r.k = {gathered.k, 0, key_heads * key_dim, key_dim};
  r.v = {gathered.v, 0, value_heads * value_dim, value_dim};
  r.o = {gathered.o, 0, value_heads * value_dim, value_dim};
  r.beta = {gathered.beta, 0, value_heads, 1};
  r.gate = {gathered.gate, 0, value_heads, 1};
  r.gate_mode = GateMode::log;
  r.a_log = r.dt_bias = nullptr;
  r.initial.row = initial.memory;
  r.final.row = final.memory;
  r.validate = false;
  // How many tokens a memory gets depends on those to come; which form they go in must not, nor where sequences are cut.
  r.plan.recurrent_tokens = 0;
  r.batch_invariant = true;
  return r;
}

namespace {

// Whether a call's memories are gathered. Else tokens go one by one.
bool gathers(const MixtureOfMemoriesParams& p) {
  const auto dense = [&](const RecurrenceParams::States& s) {
    return !s.data || s.row == p.memories * s.memory || p.sequences.state_rows == 1;
  };
  return p.dtype != DType::f32 && p.key_dim <= kMaxChunkKeys && p.sequences.tokens > kRecurrentTokens && p.checkpoint_every == 0 &&
         dense(p.initial) && dense(p.final) && p.entries() < 0x7fffffff && p.sequences.count * p.memories < 0x7fffffff;
}

void plan_gathered(const Call& call, MixtureOfMemoriesParams& p, uint64_t own_bytes) {
  using Gathered = MixtureOfMemoriesParams::Gathered;
  WorkspaceParts parts;
  const auto entries = static_cast<uint64_t>(p.entries()), sequences = static_cast<uint64_t>(p.sequences.count * p.memories);
  const uint64_t keys = entries * static_cast<uint64_t>(p.key_heads * p.key_dim) * size_of(p.dtype);
  const uint64_t values = entries * static_cast<uint64_t>(p.value_heads * p.value_dim) * size_of(p.dtype);
  const uint64_t gates = entries * static_cast<uint64_t>(p.value_heads) * sizeof(float);
  const uint64_t begins = parts.add((sequences + 1) * 4), read = parts.add(sequences * 4), write = parts.add(sequences * 4);
  const uint64_t sources = parts.add(entries * 4), places = parts.add(entries * 4);
  const uint64_t q = parts.add(keys), k = parts.add(keys), v = parts.add(values), o = parts.add(values);
  const uint64_t beta = parts.add(gates), gate = parts.add(gates), states = parts.add(p.sequences.cu_seqlens ? own_bytes : 0);
  RecurrenceParams inner = p.inner();
  // For the plan, which asks only whether sequences are packed and there is a delta rule.
  inner.sequences.cu_seqlens = static_cast<const int32_t*>(p.ids.data);
  inner.beta.data = p.beta.data;
  const OwnWorkspace space = plan_recurrence(call, inner, parts.bytes());
  const auto list = [&](uint64_t part) { return WorkspaceParts::at<int32_t>(space.own, part); };
  const auto tensor = [&](uint64_t part) { return WorkspaceParts::at<char>(space.own, part); };
  p.plan = space.plan;
  p.own_states = WorkspaceParts::at<float>(space.own, states);
  p.gathered = Gathered{true, list(begins), list(read), list(write), list(sources), list(places), tensor(q), tensor(k), tensor(v), tensor(o),
                        WorkspaceParts::at<float>(space.own, beta), WorkspaceParts::at<float>(space.own, gate)};
}

}  // namespace

MixtureOfMemoriesParams check_mixture_of_memories(const Call& call, const cul_mixture_of_memories_args& args) {
  call.one_of(args.gate_mode, {CUL_GATE_LOG, CUL_GATE_SOFTPLUS}, "gate_mode");
  call.flag(args.qk_l2norm, "qk_l2norm");
  const bool softplus = args.gate_mode == CUL_GATE_SOFTPLUS;
  RecurrenceViews x = gather_recurrence(call, args);
  x.initial = call.required(args.initial_state, "initial_state");
  x.beta = call.required(args.beta, "beta");
  x.gate = softplus ? call.required(args.a, "a") : call.required(args.g, "g");
  if (softplus) {
    x.a_log = call.required(args.a_log, "a_log");
    x.dt_bias = call.required(args.dt_bias, "dt_bias");
  }
  if (softplus ? args.g != nullptr : args.a || args.a_log || args.dt_bias)
    call.refuse(CUL_UNSUPPORTED, "gate_mode log takes g alone, softplus takes a, a_log and dt_bias alone");
  const View ids = call.required(args.ids, "ids"), weights = call.required(args.weights, "weights");
  call.rank(ids, 3, "[B,T,k]");
  call.dtype(ids, {DType::i32});
  call.rank(weights, 3, "[B,T,k]");
  call.dtype(weights, {DType::f32});
  call.same_shape(weights, ids);
  if (ids[2] < 1) call.refuse(CUL_SHAPE, "ids is %s; a token must have at least one slot", shape_text(ids).c_str());

  const RecurrenceViews whole = x;
  MixtureOfMemoriesParams::Slots slot;
  if (x.q.rank == 5) {
    call.rank(x.k, 5, "[B,T,k,H,K] as q");
    call.rank(x.v, 5, "[B,T,k,HV,V] as q has a slot axis");
    call.rank(x.beta, 4, "[B,T,k,HV] as q has a slot axis");
    call.rank(x.gate, 4, "[B,T,k,HV] as q has a slot axis");
    const int64_t slots = ids[2];
    slot.q = take_slots(call, x.q, slots, "[B,T,k,H,K]");
    slot.k = take_slots(call, x.k, slots, "[B,T,k,H,K]");
    slot.v = take_slots(call, x.v, slots, "[B,T,k,HV,V]");
    slot.beta = take_slots(call, x.beta, slots, "[B,T,k,HV]");
    slot.gate = take_slots(call, x.gate, slots, "[B,T,k,HV]");
  }
  call.rank(x.initial, 5, "[N,M,HV,V,K]");
  RecurrenceLimits limits;
  limits.memories = x.initial[1];
  if (limits.memories < 1)
    call.refuse(CUL_SHAPE, "initial_state is %s; it must hold at least one memory", shape_text(x.initial).c_str());
  MixtureOfMemoriesParams p;
  static_cast<RecurrenceParams&>(p) =
      check_recurrence_views(call, x, Decay::token, static_cast<GateMode>(args.gate_mode), args.scale,
                             args.state_layout, args.checkpoint_every, limits);
  call.shape(ids, {p.batch, p.sequences.tokens, -1}, "[B,T,k]");
  check_recurrence_overlaps(call, whole, {&ids, &weights});
  p.l2norm = args.qk_l2norm;
  p.memories = limits.memories;
  p.slots = ids[2];
  p.slot = slot;
  p.ids = {ids.data, ids.stride_of(0), ids.stride_of(1)};
  p.weights = {weights.data, weights.stride_of(0), weights.stride_of(1)};
  const bool own = call.caps().backend != CUL_BACKEND_CPU && !x.final;
  const uint64_t own_bytes = own ? static_cast<uint64_t>(x.initial.elements()) * sizeof(float) : 0;
  if (call.caps().backend != CUL_BACKEND_CPU && gathers(p)) {
    plan_gathered(call, p, own_bytes);
    return p;
  }
  p.own_states = static_cast<float*>(call.workspace(own_bytes));
  if (call.plan_only()) call.explain("mixture_of_memories: token by token, states in memory");
  return p;
}

std::string MixtureOfMemoriesParams::invalid_text(int64_t i) const {
  const int64_t route = i - RecurrenceParams::index_items();
  if (route < 0) return RecurrenceParams::invalid_text(i);
  const int64_t token = route / slots, b = token / sequences.tokens, t = token - b * sequences.tokens;
  return format("ids[%lld, %lld, %lld] = %d; it must be -1 or one of %lld memories", static_cast<long long>(b), static_cast<long long>(t),
                static_cast<long long>(route % slots), id(b, t, route % slots), static_cast<long long>(memories));
}

}  // namespace culebra

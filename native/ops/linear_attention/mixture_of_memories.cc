#include "ops/linear_attention/mixture_of_memories.h"

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
  return p;
}

}  // namespace culebra

#include "ops/linear_attention/recurrence.h"

#include "ops/linear_attention/recurrence_check.h"

namespace culebra {
namespace {

// A tensor that another operator or gate mode takes is a mistake, not to be ignored.
void refuse_extra(const Call& call, const cul_tensor* given, const char* name, const char* why) {
  if (given) call.refuse(CUL_UNSUPPORTED, "%s is given, but %s", name, why);
}

// Where the gate comes from; the decay of simple_gla depends on which tensor it is.
Decay gather_gate(const Call& call, const cul_recurrence_args& args, const RecurrenceForm& form, GateMode mode,
                  RecurrenceViews& x) {
  if (form.decay == Decay::none) {
    for (const auto& [tensor, name] : {std::pair{args.g, "g"}, {args.g_head, "g_head"}, {args.a, "a"},
                                       {args.a_log, "a_log"}, {args.dt_bias, "dt_bias"}})
      refuse_extra(call, tensor, name, "this operator has no decay");
    return Decay::none;
  }
  if (mode == GateMode::log) {
    if (!form.head_gates) refuse_extra(call, args.g_head, "g_head", "only simple_gla takes it");
    if (form.head_gates && !args.g && !args.g_head) call.refuse(CUL_NULL_POINTER, "g or g_head is required");
    if (args.g) refuse_extra(call, args.g_head, "g_head", "g is the gate already");
    x.gate = args.g_head ? call.required(args.g_head, "g_head") : call.required(args.g, "g");
    for (const auto& [tensor, name] : {std::pair{args.a, "a"}, {args.a_log, "a_log"}, {args.dt_bias, "dt_bias"}})
      refuse_extra(call, tensor, name, "gate_mode log takes the log gates alone");
    return args.g_head ? Decay::head : form.decay;
  }
  x.gate = call.required(args.a, "a");
  x.a_log = call.required(args.a_log, "a_log");
  x.dt_bias = call.required(args.dt_bias, "dt_bias");
  refuse_extra(call, args.g, "g", "this gate_mode takes a, a_log and dt_bias");
  refuse_extra(call, args.g_head, "g_head", "only simple_gla takes it");
  return form.decay;
}

void check_attributes(const Call& call, const cul_recurrence_args& args, const RecurrenceForm& form) {
  if (form.lower_bound) {
    call.one_of(args.gate_mode, {CUL_GATE_LOG, CUL_GATE_SOFTPLUS, CUL_GATE_LOWER_BOUND}, "gate_mode");
  } else if (form.raw_gates) {
    call.one_of(args.gate_mode, {CUL_GATE_LOG, CUL_GATE_SOFTPLUS}, "gate_mode");
  } else {
    call.one_of(args.gate_mode, {CUL_GATE_LOG}, "gate_mode");
  }
  if (args.gate_mode == CUL_GATE_LOWER_BOUND && !(args.lower_bound >= -5 && args.lower_bound < 0))
    call.refuse(CUL_RANGE, "lower_bound is %g; it must be at least -5 and below 0",
                static_cast<double>(args.lower_bound));
  call.flag(args.qk_l2norm, "qk_l2norm");
  if (args.qk_l2norm && !form.delta) call.refuse(CUL_RANGE, "qk_l2norm is 1; only the delta rules normalise q and k");
}

}  // namespace

RecurrenceParams check_recurrence(const Call& call, const cul_recurrence_args& args, const RecurrenceForm& form) {
  check_attributes(call, args, form);
  RecurrenceViews x = gather_recurrence(call, args);
  if (form.delta) x.beta = call.required(args.beta, "beta");
  if (!form.delta) refuse_extra(call, args.beta, "beta", "only the delta rules take it");
  const GateMode mode = static_cast<GateMode>(args.gate_mode);
  const Decay decay = gather_gate(call, args, form, mode, x);
  RecurrenceParams p =
      check_recurrence_views(call, x, decay, mode, args.scale, args.state_layout, args.checkpoint_every);
  check_recurrence_overlaps(call, x);
  p.l2norm = args.qk_l2norm;
  p.lower_bound = args.lower_bound;
  p.plan = plan_recurrence(call, p);
  return p;
}

RecurrenceParams check_simple_gla(const Call& call, const cul_recurrence_args& args) {
  return check_recurrence(call, args, {.decay = Decay::token, .head_gates = true});
}
RecurrenceParams check_gated_linear_attention(const Call& call, const cul_recurrence_args& args) {
  return check_recurrence(call, args, {.decay = Decay::channel});
}
RecurrenceParams check_delta_rule(const Call& call, const cul_recurrence_args& args) {
  return check_recurrence(call, args, {.delta = true});
}
RecurrenceParams check_gated_delta_rule(const Call& call, const cul_recurrence_args& args) {
  return check_recurrence(call, args, {.decay = Decay::token, .delta = true, .raw_gates = true});
}
RecurrenceParams check_kda(const Call& call, const cul_recurrence_args& args) {
  return check_recurrence(call, args, {.decay = Decay::channel, .delta = true, .raw_gates = true, .lower_bound = true});
}

std::string RecurrenceParams::invalid_text(int64_t i) const {
  if (i < sequences.count) return sequences.invalid_text(i);
  return format("checkpoints has %lld rows, but the lengths in cu_seqlens give %lld", static_cast<long long>(checkpoint_count),
                static_cast<long long>(checkpoints_before(sequences.count)));
}

}  // namespace culebra

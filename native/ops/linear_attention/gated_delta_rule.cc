#include "ops/linear_attention/gated_delta_rule.h"

#include <cmath>


namespace culebra {
namespace {

using Params = GatedDeltaRuleParams;

Params::Heads heads(const View& x) {
  return {x.data, x.stride_of(0), x.stride_of(1), x.rank == 4 ? x.stride_of(2) : 1};
}

Params::States states(const View& s, bool vk) {
  if (!s) return {};
  return {s.as<float>(), s.stride_of(0), s.stride_of(1), vk ? s.stride_of(2) : 1, vk ? 1 : s.stride_of(2)};
}

void check_head_dim(const Call& call, const View& x, const char* letter) {
  const int64_t d = x[3];
  if (d < 8 || d > 256 || d % 8)
    call.refuse(CUL_SHAPE, "%s is %s; its last dimension %s must be a multiple of 8 from 8 to 256", x.name,
                shape_text(x).c_str(), letter);
}

void check_checkpoints(const Call& call, const cul_gated_delta_rule_args& args, const View& checkpoints,
                       const Params& p) {
  const int32_t every = args.checkpoint_every;
  const int64_t tokens = p.sequences.tokens;
  if (every < 0 || (every % 64 && every != 1) || (every == 1 && tokens > 8))
    call.refuse(CUL_RANGE, "checkpoint_every is %d with T = %lld; it must be 0, a multiple of 64, or 1 where T <= 8",
                every, static_cast<long long>(tokens));
  if (every > 0 && !checkpoints)
    call.refuse(CUL_NULL_POINTER, "checkpoints is required with checkpoint_every %d", every);
  if (every == 0 && checkpoints) call.refuse(CUL_RANGE, "checkpoints is given but checkpoint_every is 0");
  // How many a packed run has, only its lengths tell: the op checks that when it runs.
  if (every > 0 && !p.sequences.cu_seqlens && checkpoints[0] != p.sequences.count * (tokens / every))
    call.refuse(CUL_SHAPE,
                "checkpoints is %s, but %lld sequences of %lld tokens have %lld states with checkpoint_every %d",
                shape_text(checkpoints).c_str(), static_cast<long long>(p.sequences.count),
                static_cast<long long>(tokens), static_cast<long long>(p.sequences.count * (tokens / every)), every);
}

}  // namespace

Params check_gated_delta_rule(const Call& call, const cul_gated_delta_rule_args& args) {
  call.one_of(args.gate_mode, {CUL_GATE_LOG, CUL_GATE_SOFTPLUS}, "gate_mode");
  const bool softplus = args.gate_mode == CUL_GATE_SOFTPLUS;
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v");
  const View beta = call.required(args.beta, "beta");
  const View gate = softplus ? call.required(args.a, "a") : call.required(args.g, "g");
  const View a_log = softplus ? call.required(args.a_log, "a_log") : View{};
  const View dt_bias = softplus ? call.required(args.dt_bias, "dt_bias") : View{};
  if (softplus ? args.g != nullptr : args.a || args.a_log || args.dt_bias)
    call.refuse(CUL_UNSUPPORTED, "gate_mode log takes g alone, softplus takes a, a_log and dt_bias alone");
  const View cu_seqlens = call.optional(args.cu_seqlens, "cu_seqlens");
  const View initial = call.optional(args.initial_state, "initial_state");
  const View read_index = call.optional(args.state_read_index, "state_read_index");
  const View write_index = call.optional(args.state_write_index, "state_write_index");
  const View o = call.required(args.o, "o");
  const View final = call.optional(args.final_state, "final_state");
  const View checkpoints = call.optional(args.checkpoints, "checkpoints");

  call.rank(q, 4, "[B,T,H,K]");
  call.rank(v, 4, "[B,T,HV,V]");
  call.rank(beta, 3, "[B,T,HV]");
  call.rank(gate, 3, "[B,T,HV]");
  const bool vk = args.state_layout == CUL_STATE_VK;
  call.one_of(args.state_layout, {CUL_STATE_VK, CUL_STATE_KV}, "state_layout");
  const char* state_text = vk ? "[N,HV,V,K]" : "[N,HV,K,V]";
  for (const View* s : {&initial, &final, &checkpoints})
    if (*s) call.rank(*s, 4, state_text);

  call.dtype(q, {DType::f32, DType::f16, DType::bf16});
  for (const View* x : {&k, &v, &o}) call.same_dtype(*x, q);
  call.dtype(beta, {DType::f32});
  if (softplus) {
    call.same_dtype(gate, q);
    call.dtype(a_log, {DType::f32});
    call.dtype(dt_bias, {DType::f32});
  } else {
    call.dtype(gate, {DType::f32});
  }
  for (const View* s : {&initial, &final, &checkpoints})
    if (*s) call.dtype(*s, {DType::f32});

  const int64_t B = q[0], T = q[1], H = q[2], K = q[3], HV = v[2], V = v[3];
  call.same_shape(k, q);
  call.shape(v, {B, T, -1, -1}, "[B,T,HV,V]");
  if (H < 1 || HV < 1 || HV % H)
    call.refuse(CUL_SHAPE, "v has %lld heads but q and k have %lld; HV must be a multiple of H",
                static_cast<long long>(HV), static_cast<long long>(H));
  check_head_dim(call, q, "K");
  check_head_dim(call, v, "V");
  call.shape(beta, {B, T, HV}, "[B,T,HV]");
  call.shape(gate, {B, T, HV}, "[B,T,HV]");
  if (softplus) {
    call.shape(a_log, {HV}, "[HV]");
    call.shape(dt_bias, {HV}, "[HV]");
  }
  call.same_shape(o, v);
  for (const View* s : {&initial, &final, &checkpoints})
    if (*s) call.shape(*s, {-1, HV, vk ? V : K, vk ? K : V}, state_text);

  Params p;
  p.sequences = check_sequences(call, B, T, cu_seqlens, read_index, write_index, initial, final);
  check_checkpoints(call, args, checkpoints, p);
  call.flag(args.qk_l2norm, "qk_l2norm");
  if (!std::isfinite(args.scale)) call.refuse(CUL_RANGE, "scale is %g; it must be finite", args.scale);

  for (const View* out : {&o, &final, &checkpoints})
    if (*out) call.distinct(*out);
  const View* inputs[] = {&q, &k, &v, &beta, &gate, &a_log, &dt_bias, &cu_seqlens, &read_index, &write_index};
  for (const View* out : {&o, &final, &checkpoints})
    for (const View* in : inputs) call.disjoint(*out, *in);
  call.disjoint(o, initial);
  call.disjoint(checkpoints, initial);
  call.disjoint(final, initial, true);
  call.disjoint(final, o);
  call.disjoint(checkpoints, o);
  call.disjoint(checkpoints, final);

  p.dtype = q.dtype;
  p.key_heads = H;
  p.value_heads = HV;
  p.key_dim = K;
  p.value_dim = V;
  p.q = heads(q);
  p.k = heads(k);
  p.v = heads(v);
  p.o = heads(o);
  p.beta = heads(beta);
  p.gate = heads(gate);
  p.a_log = a_log.as<const float>();
  p.dt_bias = dt_bias.as<const float>();
  p.initial = states(initial, vk);
  p.final = states(final, vk);
  p.checkpoints = states(checkpoints, vk);
  p.checkpoint_count = checkpoints ? checkpoints[0] : 0;
  p.checkpoint_every = args.checkpoint_every;
  p.scale = args.scale == 0 ? 1 / std::sqrt(static_cast<float>(K)) : args.scale;
  p.l2norm = args.qk_l2norm;
  return p;
}

}  // namespace culebra

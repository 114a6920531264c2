#include "ops/linear_attention/recurrence_check.h"

#include <cmath>

namespace culebra {
namespace {

using Params = RecurrenceParams;

long long number(int64_t x) { return static_cast<long long>(x); }

Params::States states(const View& s, bool vk, bool memories) {
  if (!s) return {};
  const int v = memories ? 3 : 2;
  return {s.as<float>(), s.stride_of(0), s.stride_of(v - 1), vk ? s.stride_of(v) : 1, vk ? 1 : s.stride_of(v),
          memories ? s.stride_of(1) : 0};
}

void check_head_dim(const Call& call, const View& x, const char* letter, int64_t limit) {
  const int64_t d = x[3];
  if (d < 8 || d > limit || d % 8)
    call.refuse(CUL_SHAPE, "%s is %s; its last dimension %s must be a multiple of 8 from 8 to %lld", x.name,
                shape_text(x).c_str(), letter, number(limit));
}

void check_checkpoints(const Call& call, int32_t every, const View& checkpoints, const Sequences& s) {
  if (every < 0 || (every % 64 && every != 1) || (every == 1 && s.tokens > 8))
    call.refuse(CUL_RANGE, "checkpoint_every is %d with T = %lld; it must be 0, a multiple of 64, or 1 where T <= 8",
                every, number(s.tokens));
  if (every > 0 && !checkpoints)
    call.refuse(CUL_NULL_POINTER, "checkpoints is required with checkpoint_every %d", every);
  if (every == 0 && checkpoints) call.refuse(CUL_RANGE, "checkpoints is given but checkpoint_every is 0");
  // How many a packed run has, only its lengths tell: the op checks that when it runs.
  if (every > 0 && !s.cu_seqlens && checkpoints[0] != s.count * (s.tokens / every))
    call.refuse(CUL_SHAPE,
                "checkpoints is %s, but %lld sequences of %lld tokens have %lld states with checkpoint_every %d",
                shape_text(checkpoints).c_str(), number(s.count), number(s.tokens),
                number(s.count * (s.tokens / every)), every);
}

}  // namespace

Params::Heads recurrence_heads(const View& x) {
  return {x.data, x.stride_of(0), x.stride_of(1), x.rank == 4 ? x.stride_of(2) : 1};
}

Params check_recurrence_views(const Call& call, const RecurrenceViews& x, Decay decay, GateMode mode, float scale,
                              int32_t state_layout, int32_t checkpoint_every, const RecurrenceLimits& limits) {
  const bool channel = decay == Decay::channel, memories = limits.memories > 0;
  call.rank(x.q, 4, "[B,T,H,K]");
  call.rank(x.v, 4, "[B,T,HV,V]");
  if (x.beta) call.rank(x.beta, 3, "[B,T,HV]");
  if (x.gate && decay == Decay::head) call.rank(x.gate, 1, "[HV]");
  if (x.gate && decay == Decay::token) call.rank(x.gate, 3, "[B,T,HV]");
  if (x.gate && channel) call.rank(x.gate, 4, "[B,T,HV,K]");
  call.one_of(state_layout, {CUL_STATE_VK, CUL_STATE_KV}, "state_layout");
  const bool vk = state_layout == CUL_STATE_VK;
  const char* state_text = memories ? (vk ? "[N,M,HV,V,K]" : "[N,M,HV,K,V]") : (vk ? kStateVk : kStateKv);
  for (const View* s : {&x.initial, &x.final, &x.checkpoints})
    if (*s) call.rank(*s, memories ? 5 : 4, state_text);

  call.dtype(x.q, {DType::f32, DType::f16, DType::bf16});
  for (const View* other : {&x.k, &x.v, &x.o}) call.same_dtype(*other, x.q);
  if (x.gate && mode != GateMode::log) call.same_dtype(x.gate, x.q);
  if (x.gate && mode == GateMode::log) call.dtype(x.gate, {DType::f32});
  for (const View* other : {&x.beta, &x.a_log, &x.dt_bias, &x.initial, &x.final, &x.checkpoints})
    if (*other) call.dtype(*other, {DType::f32});

  const int64_t B = x.q[0], T = x.q[1], H = x.q[2], K = x.q[3], HV = x.v[2], V = x.v[3];
  call.same_shape(x.k, x.q);
  call.shape(x.v, {B, T, -1, -1}, "[B,T,HV,V]");
  if (H < 1 || HV < 1 || HV % H)
    call.refuse(CUL_SHAPE, "v has %lld heads but q and k have %lld; HV must be a multiple of H", number(HV), number(H));
  check_head_dim(call, x.q, "K", 256);
  check_head_dim(call, x.v, "V", limits.value_dim);
  if (x.beta) call.shape(x.beta, {B, T, HV}, "[B,T,HV]");
  if (x.gate && decay == Decay::head) call.shape(x.gate, {HV}, "[HV]");
  if (x.gate && decay == Decay::token) call.shape(x.gate, {B, T, HV}, "[B,T,HV]");
  if (x.gate && channel) call.shape(x.gate, {B, T, HV, K}, "[B,T,HV,K]");
  if (x.a_log) call.shape(x.a_log, {HV}, "[HV]");
  if (x.dt_bias && channel) call.shape(x.dt_bias, {HV, K}, "[HV,K]");
  if (x.dt_bias && !channel) call.shape(x.dt_bias, {HV}, "[HV]");
  call.same_shape(x.o, x.v);
  const int64_t columns = limits.state_columns ? limits.state_columns : K;
  for (const View* s : {&x.initial, &x.final, &x.checkpoints}) {
    if (!*s) continue;
    const int64_t rows = vk ? V : columns, inner = vk ? columns : V;
    if (memories) {
      call.shape(*s, {-1, limits.memories, HV, rows, inner}, state_text);
    } else {
      call.shape(*s, {-1, HV, rows, inner}, state_text);
    }
  }

  Params p;
  p.sequences = check_sequences(call, B, T, x.cu_seqlens, x.read_index, x.write_index, x.initial, x.final);
  check_checkpoints(call, checkpoint_every, x.checkpoints, p.sequences);
  if (!std::isfinite(scale)) call.refuse(CUL_RANGE, "scale is %g; it must be finite", static_cast<double>(scale));

  p.op = call.op();
  p.batch = B;
  p.dtype = x.q.dtype;
  p.key_heads = H;
  p.value_heads = HV;
  p.key_dim = K;
  p.value_dim = V;
  p.q = recurrence_heads(x.q);
  p.k = recurrence_heads(x.k);
  p.v = recurrence_heads(x.v);
  p.o = recurrence_heads(x.o);
  if (x.beta) p.beta = recurrence_heads(x.beta);
  p.decay = decay;
  p.gate_mode = mode;
  if (x.gate) p.gate = decay == Decay::head ? Params::Heads{x.gate.data, 0, 0, 1} : recurrence_heads(x.gate);
  p.a_log = x.a_log.as<const float>();
  p.dt_bias = x.dt_bias.as<const float>();
  if (x.dt_bias && channel) p.dt_bias_head = x.dt_bias.stride_of(0);
  p.initial = states(x.initial, vk, memories);
  p.final = states(x.final, vk, memories);
  p.checkpoints = states(x.checkpoints, vk, memories);
  p.checkpoint_count = x.checkpoints ? x.checkpoints[0] : 0;
  p.checkpoint_every = checkpoint_every;
  p.scale = scale == 0 ? 1 / std::sqrt(static_cast<float>(K)) : scale;
  p.batch_invariant = call.batch_invariant();
  p.validate = call.validate();
  return p;
}

void check_recurrence_overlaps(const Call& call, const RecurrenceViews& x, std::initializer_list<const View*> more) {
  for (const View* out : {&x.o, &x.final, &x.checkpoints}) {
    if (!*out) continue;
    call.distinct(*out);
    for (const View* in : {&x.q, &x.k, &x.v, &x.beta, &x.gate, &x.a_log, &x.dt_bias, &x.cu_seqlens, &x.read_index,
                           &x.write_index})
      call.disjoint(*out, *in);
    for (const View* in : more) call.disjoint(*out, *in);
  }
  call.disjoint(x.o, x.initial);
  call.disjoint(x.checkpoints, x.initial);
  call.disjoint(x.final, x.initial, true);
  call.disjoint(x.final, x.o);
  call.disjoint(x.checkpoints, x.o);
  call.disjoint(x.checkpoints, x.final);
}

}  // namespace culebra

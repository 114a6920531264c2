// The parts of a check that every recurrence of the family shares, on tensors that an operator has gathered.
#pragma once
#include "ops/linear_attention/recurrence.h"

namespace culebra {

// The tensors of a recurrence. Where an operator has none of a kind, the view is absent.
struct RecurrenceViews {
  View q, k, v, beta, gate, a_log, dt_bias, cu_seqlens, initial, read_index, write_index, o, final, checkpoints;
};

struct RecurrenceLimits {
  int64_t value_dim = 256;
  int64_t state_columns = 0;  // of the key side; 0 = K
  int64_t memories = 0;       // extent of the states' second dimension; 0 = they have none
};

inline constexpr const char* kStateVk = "[N,HV,V,K]";
inline constexpr const char* kStateKv = "[N,HV,K,V]";

// q, k, v, o and the states' tensors of any args struct of the family.
template <class Args>
RecurrenceViews gather_recurrence(const Call& call, const Args& args) {
  RecurrenceViews x;
  x.q = call.required(args.q, "q");
  x.k = call.required(args.k, "k");
  x.v = call.required(args.v, "v");
  x.cu_seqlens = call.optional(args.cu_seqlens, "cu_seqlens");
  x.initial = call.optional(args.initial_state, "initial_state");
  x.read_index = call.optional(args.state_read_index, "state_read_index");
  x.write_index = call.optional(args.state_write_index, "state_write_index");
  x.o = call.required(args.o, "o");
  x.final = call.optional(args.final_state, "final_state");
  x.checkpoints = call.optional(args.checkpoints, "checkpoints");
  return x;
}

// Ranks, dtypes, extents, attributes; everything but overlaps. Gate and beta only where they are there.
RecurrenceParams check_recurrence_views(const Call& call, const RecurrenceViews& x, Decay decay, GateMode mode,
                                        float scale, int32_t state_layout, int32_t checkpoint_every,
                                        const RecurrenceLimits& limits = {});

// No output overlaps an input or another output, but for final = initial; `more` are inputs beyond those of `x`.
void check_recurrence_overlaps(const Call& call, const RecurrenceViews& x, std::initializer_list<const View*> more = {});

RecurrenceParams::Heads recurrence_heads(const View& x);

}  // namespace culebra

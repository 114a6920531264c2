// How the device runs a recurrence: which sequences go in chunks, and the workspace that takes.
#pragma once
#include "abi/call.h"
#include "ops/linear_attention/chunk_layout.h"

namespace culebra {

// Sequences with at most kRecurrentTokens tokens go token by token, longer ones of half operands in chunks. A sequence's
// length alone decides, never its company: batch_invariant changes nothing.
inline constexpr int64_t kRecurrentTokens = 16;

struct RecurrencePlan {
  bool recurrent = true;  // some sequence may go token by token
  bool chunked = false;   // some sequence may go in chunks
  ChunkLayout chunks;
  int scan_stages = 2;  // chunks in shared memory at once
  void* workspace = nullptr;
};

struct RecurrenceParams;
// Of the checked p on call's device; states the workspace's size and takes it. On cpu an empty plan.
RecurrencePlan plan_recurrence(const Call& call, const RecurrenceParams& p);

}  // namespace culebra

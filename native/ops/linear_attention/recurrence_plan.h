// How the device runs a recurrence: which sequences go in chunks, how those are cut, and the workspace that takes.
#pragma once
#include "abi/call.h"
#include "ops/linear_attention/chunk_layout.h"

namespace culebra {

// Sequences with at most kRecurrentTokens tokens go token by token, longer ones of half operands in chunks. A sequence's
// length alone decides, never its company.
inline constexpr int64_t kRecurrentTokens = 16;

struct RecurrencePlan {
  bool recurrent = true;  // some sequence may go token by token
  bool chunked = false;   // some sequence may go in chunks
  ChunkLayout chunks;
  ScanPlan scan;
  void* workspace = nullptr;
};

struct RecurrenceParams;
// Of the checked p on call's device; states the workspace's size and takes it. On cpu an empty plan.
RecurrencePlan plan_recurrence(const Call& call, const RecurrenceParams& p);

// The launch of the second kernel: 16 rows of a state a warp, blocks as large as still fill the device, since each reads its chunks'
// operands anew. Where even blocks of one warp leave multiprocessors idle, long sequences are cut, which costs every chunk twice and a
// chain of products over the segments; not with batch_invariant, whose results depend on a sequence alone.
ScanPlan plan_scan(const RecurrenceParams& p, const ChunkLayout& chunks, int multiprocessors, int shared_bytes);

}  // namespace culebra

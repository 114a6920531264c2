// How the device runs a recurrence: which sequences go in chunks, how those are cut, and the workspace that takes.
#pragma once
#include "abi/call.h"
#include "ops/linear_attention/chunk_layout.h"
#include "ops/linear_attention/tiled_layout.h"

namespace culebra {

// Sequences with at most kRecurrentTokens tokens go token by token, longer ones of half operands in chunks. A sequence's
// length alone decides, never its company.
inline constexpr int64_t kRecurrentTokens = 16;

struct RecurrencePlan {
  // The longest sequences that go token by token where others go in chunks.
  int64_t recurrent_tokens = kRecurrentTokens;
  bool recurrent = true;  // some sequence may go token by token
  bool chunked = false;   // some sequence may go in chunks
  ChunkLayout chunks;
  ScanPlan scan;
  bool tiled = false;     // those go in spans of chunks instead
  TiledPlan tiles;
  void* workspace = nullptr;
};

struct RecurrenceParams;
// Of the checked p on call's device; states the workspace's size and takes it. On cpu an empty plan.
RecurrencePlan plan_recurrence(const Call& call, const RecurrenceParams& p);
// As above, with `own_bytes` of the operator's own before what the plan takes, on every device; null in a call that only plans.
struct OwnWorkspace {
  RecurrencePlan plan;
  void* own = nullptr;
};
OwnWorkspace plan_recurrence(const Call& call, const RecurrenceParams& p, uint64_t own_bytes);

// The parts of an operator's own workspace, behind one another, each at a multiple of 256 bytes.
class WorkspaceParts {
 public:
  // Where the part begins, and how far all reach now.
  uint64_t add(uint64_t bytes) {
    const uint64_t at = bytes_;
    bytes_ += (bytes + 255) / 256 * 256;
    return at;
  }
  uint64_t bytes() const { return bytes_; }
  template <class T>
  static T* at(void* own, uint64_t part) {
    return own ? reinterpret_cast<T*>(static_cast<char*>(own) + part) : nullptr;
  }

 private:
  uint64_t bytes_ = 0;
};

// The launch of the second kernel: 16 rows of a state a warp, blocks as large as still fill the device, since each reads its chunks'
// operands anew. Where even blocks of one warp leave multiprocessors idle, long sequences are cut, which costs every chunk twice and a
// chain of products over the segments; not with batch_invariant, whose results depend on a sequence alone.
ScanPlan plan_scan(const RecurrenceParams& p, const ChunkLayout& chunks, int multiprocessors, int shared_bytes);

// The launches of the tiled form; output_stages is 0 where a block's shared memory does not reach. Tiles of states are as large as still
// give every multiprocessor one: each reads its chunks' operands anew.
TiledPlan plan_tiles(const RecurrenceParams& p, int multiprocessors, int shared_bytes);

}  // namespace culebra

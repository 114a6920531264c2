// estimated_sparse_attention: its plan and its columns.
#pragma once
#include "culebra/sparse_attention.h"
#include "device/block_divide.h"
#include "ops/attention/head_rows.h"
#include "ops/sparse_attention/packed.h"

namespace culebra {

// Where things lie in a device's workspace. Query blocks are numbered by slots: sequence b's begin at cu_q[b] / block_q + b.
struct EstimatedPlan {
  bool hopper = false;       // softmax over the lists by the loop for compute capability 9.0
  bool hopper_estimate = false;  // the estimate by wgmma: then bits, and lists from them
  int64_t slots = 0;         // query blocks of a head, some of them empty
  int64_t list_entries = 0;  // key blocks that one can have
  int64_t slots_at_once = 1;  // that the workspace has lists for: the others follow in turn
  uint64_t lse_at = 0;       // f32 [Tq,Hq], of the certain blocks
  uint64_t keys_at = 0;      // i8 [Hkv,Tk,estimate_pitch]
  uint64_t scales_at = 0;    // f32 [Hkv, Tk / 16 + B]: of 16 keys of a sequence
  uint64_t lists_at = 0;     // i32 [slots at once,Hq,list_entries]
  uint64_t counts_at = 0;    // i32 [slots at once,Hq]
  uint64_t bits_at = 0;      // u32 [slots at once,Hq,bit_words]: of blocks that are not certain; where the estimate is by wgmma
  uint64_t workspace_bytes = 0;

  CUL_NUMERIC int64_t bit_words() const { return (list_entries + 31) / 32; }
};

struct EstimatedParams : PackedHeads {
  int64_t block_q = 64, block_k = 32, sink = 32, local = 128, dense_length = 1024;
  int est = 0;
  const float* tau = nullptr;
  int64_t* kept = nullptr;  // null where absent
  bool aligned = false, validate = false;
  EstimatedPlan plan;
  void* workspace = nullptr;

  // Key blocks of a query block: [0, certain_begin) and [certain_end, end) are certain.
  struct Span {
    int64_t certain_begin, certain_end, end;
  };
  // Of query block r of a sequence.
  CUL_NUMERIC Span span(int64_t r, int64_t queries, int64_t keys) const {
    const int64_t last_row = (r + 1) * block_q < queries ? (r + 1) * block_q : queries;
    const int64_t seen = last_row + keys - queries;  // keys that the last row sees
    const auto blocks = [&](int64_t keys) { return block_divide(keys + block_k - 1, block_k).quotient; };
    const int64_t end = seen > 0 ? blocks(seen) : 0, first = blocks(sink), last = blocks(local);
    const int64_t begin = first < end ? first : end;
    return {begin, end - last > begin ? end - last : begin, end};
  }
  CUL_NUMERIC bool dense(int64_t head, int64_t keys) const { return tau[head] <= 0 || keys <= dense_length; }
  CUL_NUMERIC int64_t estimate_pitch() const { return dim <= 64 ? 64 : dim <= 128 ? 128 : 256; }

  // Entries of cu_q, then of cu_k (abi/indices.h).
  int64_t index_items() const { return 2 * (sequences + 1); }
  CUL_NUMERIC bool valid(int64_t i) const {
    const bool queries = i <= sequences;
    const int32_t* cu = queries ? cu_q : cu_k;
    const int64_t n = queries ? i : i - sequences - 1;
    return n == 0 ? cu[0] == 0 : cu[n] >= cu[n - 1] && cu[n] <= (queries ? query_rows : key_rows);
  }
  std::string invalid_text(int64_t i) const;
};

// hopper: the loop for compute capability 9.0 takes the call (hopper_lists.h).
EstimatedPlan plan_estimated_sparse_attention(const EstimatedParams& p, int multiprocessors, bool hopper = false);
EstimatedParams check_estimated_sparse_attention(const Call& call, const cul_estimated_sparse_attention_args& args);
CUL_DECLARE_COLUMNS(estimated_sparse_attention, EstimatedParams)

}  // namespace culebra

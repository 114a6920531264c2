// Which tokens and which state rows belong to a sequence: the part that all recurrences share.
#pragma once
#include "abi/call.h"
#include "abi/indices.h"

namespace culebra {

struct Sequence {
  int64_t batch = 0;  // row of the batch dimension
  int64_t begin = 0;  // first token there
  int64_t length = 0;
  int64_t read_row = 0;  // rows of the state tensors
  int64_t write_row = 0;
  bool skipped = false;  // its outputs are 0 and no state moves
};

// N sequences: the rows of a batch [B,T], or the intervals of cu_seqlens in one row. State row n, or the rows of a pool
// that the indices name.
struct Sequences {
  int64_t count = 0;
  int64_t tokens = 0;  // T
  const int32_t* cu_seqlens = nullptr;
  const int32_t* read_index = nullptr;
  const int32_t* write_index = nullptr;
  int64_t state_rows = 0;  // extent of the state tensors' first dimension
  bool every_token = false;  // CUL_OP_VALIDATE: cu_seqlens must end with T

  Sequence at(int64_t n) const {
    Sequence s;
    s.batch = cu_seqlens ? 0 : n;
    s.begin = cu_seqlens ? cu_seqlens[n] : 0;
    s.length = cu_seqlens ? cu_seqlens[n + 1] - s.begin : tokens;
    s.read_row = read_index ? read_index[n] : n;
    s.write_row = write_index ? write_index[n] : n;
    s.skipped = s.read_row < 0 || s.write_row < 0;
    return s;
  }

  // Sequences (abi/indices.h).
  int64_t index_items() const { return count; }
  CUL_NUMERIC bool valid(int64_t n) const {
    if (cu_seqlens && !valid_starts(cu_seqlens, n, tokens)) return false;
    if (cu_seqlens && every_token && n + 1 == count && cu_seqlens[count] != tokens) return false;
    return !read_index || (valid_row(read_index[n]) && valid_row(write_index[n]));
  }
  std::string invalid_text(int64_t n) const;

 private:
  CUL_NUMERIC bool valid_row(int32_t row) const { return row >= -1 && row < state_rows; }
};

// The state tensors are [N, ...], or with both indices [P, ...]; `batch` and `tokens` are x's first two dimensions.
Sequences check_sequences(const Call& call, int64_t batch, int64_t tokens, const View& cu_seqlens,
                          const View& read_index, const View& write_index, const View& initial_state,
                          const View& final_state);

}  // namespace culebra

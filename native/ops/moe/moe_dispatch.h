// moe_dispatch: its plan and its columns.
#pragma once
#include "ops/moe/moe_align.h"
#include "ops/moe/moe_combine.h"
#include "ops/moe/moe_permute.h"

namespace culebra {

// Slots are sorted as by moe_align, with the ranks in the experts' place; then each finds its place in its rank's part of the rows.
struct MoeDispatchParams {
  MoeAlignParams align;      // its inverse is the call's: a slot's place in the order of ranks, until it is one in rows
  MoePermuteParams permute;  // rows[inverse[t k + j]] = x[t]
  const int32_t* expert_local = nullptr;
  int32_t *row_ids = nullptr, *counts = nullptr;
  int64_t capacity = 0;  // rows of a rank
  bool validate = false;

  CUL_NUMERIC int64_t ranks() const { return align.local_experts; }
  CUL_NUMERIC int64_t rows() const { return ranks() * capacity; }
  CUL_NUMERIC int64_t count(int64_t rank) const { return align.offsets[rank + 1] - align.offsets[rank]; }

  // What a slot, a row and a rank are after the sort; each is its own, whatever the others are.
  CUL_NUMERIC void place_slot(int64_t slot) const {
    const int32_t rank = align.local_expert(slot);
    if (rank < 0) return;  // -1 already
    const int64_t at = align.inverse[slot] - align.offsets[rank], row = rank * capacity + at;
    if (at < capacity) row_ids[row] = expert_local[align.id(slot)];
    align.inverse[slot] = at < capacity ? static_cast<int32_t>(row) : kNoRoom;
  }
  CUL_NUMERIC void clear_row(int64_t row) const {
    const int64_t rank = row / capacity;
    if (row - rank * capacity >= count(rank)) row_ids[row] = -1;
  }

  // As align's, whose map gives ranks (abi/indices.h).
  int64_t index_items() const { return align.index_items(); }
  CUL_NUMERIC bool valid(int64_t i) const { return align.valid(i); }
  std::string invalid_text(int64_t i) const;
};

MoeDispatchParams check_moe_dispatch(const Call& call, const cul_moe_dispatch_args& args);

CUL_DECLARE_COLUMNS(moe_dispatch, MoeDispatchParams)

}  // namespace culebra

// merge_states: its plan and its columns.
#pragma once
#include "abi/op.h"
#include "culebra/attention.h"

namespace culebra {

struct MergeStatesParams {
  // Element (state, token, head, d) at data[state state + token row + head head + d].
  struct Rows {
    void* data = nullptr;
    int64_t state = 0, row = 0, head = 0;
  };

  DType dtype = DType::f32;
  int64_t states = 0, tokens = 0, heads = 0, dim = 0;
  Rows o, lse, merged_o, merged_lse;  // merged_lse.data is null where absent
  bool aligned = false;               // rows of o and merged_o begin and end at multiples of eight elements
};

MergeStatesParams check_merge_states(const Call& call, const cul_merge_states_args& args);
CUL_DECLARE_COLUMNS(merge_states, MergeStatesParams)

}  // namespace culebra

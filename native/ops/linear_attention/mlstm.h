// mlstm: a recurrence whose decay and key weight come of a stabilised pair of gates, and whose normaliser is one more
// state row. Maths: README.md.
#pragma once
#include "ops/linear_attention/recurrence.h"

namespace culebra {

struct MlstmParams : RecurrenceParams {
  Heads input, forget;    // f32 [B,T,H], pre-activations
  bool exponential = true;  // else the input gate is a sigmoid, and there is no m
  bool normalize = true;
  float eps = 0, soft_cap = 0;
  Vectors initial_n, final_n;  // [N,H,K]
  Vectors initial_m, final_m;  // [N,H]: row n, head h at row + h
  // Workspace, f32 [B,T,H] each: what the old state, the key and the output are multiplied with or divided by.
  float *decays = nullptr, *weights = nullptr, *divisor = nullptr;
};

MlstmParams check_mlstm(const Call& call, const cul_mlstm_args& args);
CUL_DECLARE_COLUMNS(mlstm, MlstmParams)

}  // namespace culebra

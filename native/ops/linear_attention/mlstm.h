// mlstm: a recurrence whose decay and key weight come of a stabilised pair of gates, and whose normaliser is one more
// state row. Maths: README.md.
#pragma once
#include "ops/linear_attention/normaliser.h"
#include "ops/linear_attention/recurrence.h"

namespace culebra {

struct MlstmParams : RecurrenceParams {
  Heads input, forget;    // f32 [B,T,H], pre-activations
  bool exponential = true;  // else the input gate is a sigmoid, and there is no m
  bool normalize = true;
  float eps = 0, soft_cap = 0;
  Vectors initial_n, final_n;  // [N,H,K]
  Vectors initial_m, final_m;  // [N,H]: row n, head h at row + h
  // Workspace, f32 [B,T,H] each: the decay of the old state (its log on the device), the weight of the key, what outputs are
  // divided by (on the device multiplied with), and there e^-m.
  float *decays = nullptr, *weights = nullptr, *divisor = nullptr, *least = nullptr;
  float *chunk_sums = nullptr, *chunk_decays = nullptr;  // of the device's normaliser
  // What a chunk of the exp gate does to m there, max(m + sum, peak), and then m before the chunk in place of sum; [slots][H].
  struct Shift {
    double sum, peak;
  };
  Shift* shifts = nullptr;
  int64_t slots = 0;

  // On the device, once the gates are made: the normaliser, and the recurrence that remains.
  NormaliserParams normaliser() const;
  RecurrenceParams inner() const;
};

MlstmParams check_mlstm(const Call& call, const cul_mlstm_args& args);
CUL_DECLARE_COLUMNS(mlstm, MlstmParams)

}  // namespace culebra

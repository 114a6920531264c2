// What outputs are divided by: the product of a query with the decayed sum of the weighted keys before it. On the device, in
// chunks; linear_attention and mlstm use it.
#pragma once
#include "device/launch.h"
#include "ops/linear_attention/recurrence.h"

namespace culebra {

inline constexpr int64_t kMaxNormaliserColumns = 256;

// n = e^g n + weight k; factor = 1 / (scale n.q + eps), or 1 / (max(|scale n.q|, least) + eps).
struct NormaliserParams {
  Sequences sequences;
  int64_t slots = 0;  // of chunks, as ChunkLayout counts them
  int64_t heads = 0, columns = 0;
  DType dtype = DType::f32;
  RecurrenceParams::Heads q, k;
  const float* gate = nullptr;    // dense [B,T,H] log decays; null: none
  const float* weight = nullptr;  // dense [B,T,H]; null: 1
  const float* least = nullptr;   // dense [B,T,H]; null: the product counts with its sign
  RecurrenceParams::Vectors initial, final;
  float scale = 1, eps = 0;
  bool causal = true;  // else every token reads n behind the last one
  float* factor = nullptr;  // dense [B,T,H]
  // Workspace.
  float* sums = nullptr;    // [slots][heads][columns]
  float* decays = nullptr;  // [slots][heads]
  float* ends = nullptr;    // [sequences][heads][columns], where not causal

  CUL_NUMERIC int64_t at(int64_t batch, int64_t token, int64_t head) const {
    return (batch * sequences.tokens + token) * heads + head;
  }
};

namespace cuda {
void run_normaliser(const NormaliserParams& p, CUstream_st* stream);
}
namespace simt {
void run_normaliser(const NormaliserParams& p, Queue* stream);
}

}  // namespace culebra

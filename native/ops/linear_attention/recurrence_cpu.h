// How the cpu engine cuts a recurrence into work items.
#pragma once
#include <algorithm>

#include "ops/linear_attention/feature_map.h"
#include "ops/linear_attention/recurrence.h"

namespace culebra::cpu {

inline constexpr int64_t kRecurrenceRows = 32;   // most state rows of a work item: what it keeps in the L1 cache
inline constexpr int64_t kRecurrenceChunk = 32;  // most tokens converted at once

struct RecurrenceWork {
  const RecurrenceParams* p = nullptr;
  FeatureMap features = FeatureMap::none;
  bool causal = true;
  // Factors that another pass made, f32 [B,T,HV]: of the old state, of the key, and what outputs are divided by. The
  // first two where `prepared`.
  bool prepared = false;
  const float* decay = nullptr;
  const float* weight = nullptr;
  const float* divisor = nullptr;
  int64_t divisor_heads = 0;  // of divisor: the key heads, or the value heads

  int64_t columns() const { return feature_dim(features, p->key_dim); }
  int64_t pitch() const { return (columns() + 15) / 16 * 16; }
  int64_t rows_per_item() const { return std::clamp<int64_t>(8192 / pitch() / 4 * 4, 4, kRecurrenceRows); }
  int64_t row_groups() const { return (p->value_dim + rows_per_item() - 1) / rows_per_item(); }
  int64_t chunk() const { return std::clamp<int64_t>(8192 / pitch(), 1, kRecurrenceChunk); }
  int64_t items() const { return p->sequences.count * p->value_heads * row_groups(); }
  float at(const float* x, int64_t batch, int64_t t, int64_t head) const {
    return x[(batch * p->sequences.tokens + t) * p->value_heads + head];
  }
  float divisor_at(int64_t batch, int64_t t, int64_t head) const {
    return divisor[(batch * p->sequences.tokens + t) * divisor_heads + head / (p->value_heads / divisor_heads)];
  }
};

// Queues nothing: runs the recurrence on the pool and returns.
void run_recurrence(const RecurrenceWork& work, ThreadPool& pool);

}  // namespace culebra::cpu

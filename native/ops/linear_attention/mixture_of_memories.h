// mixture_of_memories: gated delta rule steps on the memories that each token is routed to. Maths: README.md.
#pragma once
#include "ops/linear_attention/recurrence.h"

namespace culebra {

// q, k, v, beta and gate of RecurrenceParams are those of slot 0. States have the axis of memories.
struct MixtureOfMemoriesParams : RecurrenceParams {
  // Elements from a slot's tensors to the next slot's; 0 where the slots share them.
  struct Slots {
    int64_t q = 0, k = 0, v = 0, beta = 0, gate = 0;
  };
  // Element (b, t, j) at data[b batch + t token + j].
  struct Routes {
    void* data = nullptr;
    int64_t batch = 0, token = 0;
  };

  int64_t memories = 0, slots = 0;
  Slots slot;
  Routes ids, weights;  // i32; f32

  int32_t id(int64_t b, int64_t t, int64_t j) const {
    return static_cast<const int32_t*>(ids.data)[b * ids.batch + t * ids.token + j];
  }
  float weight(int64_t b, int64_t t, int64_t j) const {
    return static_cast<const float*>(weights.data)[b * weights.batch + t * weights.token + j];
  }
};

MixtureOfMemoriesParams check_mixture_of_memories(const Call& call, const cul_mixture_of_memories_args& args);
CUL_DECLARE_COLUMNS(mixture_of_memories, MixtureOfMemoriesParams)

}  // namespace culebra

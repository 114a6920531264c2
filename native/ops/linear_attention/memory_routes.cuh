// Prefills of mixture_of_memories: the tokens of each memory gathered into a sequence of its own, and what they give brought back.
#pragma once
#include "ops/linear_attention/mixture_of_memories.h"
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {

void gather_memories(const MixtureOfMemoriesParams& p, NativeStream stream);
void combine_memories(const MixtureOfMemoriesParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

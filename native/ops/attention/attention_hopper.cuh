// attention for compute capability 9.0, of half operands.
#pragma once
#include "device/launch.h"
#include "ops/attention/attention.h"

namespace culebra::CUL_DEVICE_NS {

void attention_hopper(const AttentionParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

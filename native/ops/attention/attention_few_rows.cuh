// attention where queries are few: declarations of a translation unit of its own.
#pragma once
#include "device/launch.h"
#include "ops/attention/attention.h"

namespace culebra::CUL_DEVICE_NS {

void attention_few_rows(const AttentionParams& p, NativeStream stream);
// Adds up the splits of the keys, if the plan has any.
void attention_merge(const AttentionParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

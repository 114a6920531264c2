// The two kernels of the chunkwise form, launched one after the other, and those of the tiled one.
#pragma once
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {

void prepare_chunks(const RecurrenceParams& p, NativeStream stream);
void prepare_channel_chunks(const RecurrenceParams& p, NativeStream stream);
void scan_chunks(const RecurrenceParams& p, NativeStream stream);
// The tiled form.
void tiled_states(const RecurrenceParams& p, NativeStream stream);
void tiled_outputs(const RecurrenceParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

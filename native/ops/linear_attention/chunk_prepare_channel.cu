#include "ops/linear_attention/chunk_run.h"
namespace culebra::CUL_DEVICE_NS {
void prepare_channel_chunks(const RecurrenceParams&, NativeStream) {}
}

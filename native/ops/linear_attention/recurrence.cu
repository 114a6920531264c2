// The column of every recurrence: which of the three forms takes which sequences.
#include "device/validate.h"
#include "ops/linear_attention/chunk_run.h"

namespace culebra::CUL_DEVICE_NS {
void recurrence(const RecurrenceParams& p, NativeStream stream) {
  if (p.sequences.count == 0) return;
  if (p.validate) validate(p.op, p, stream);
  if (p.plan.recurrent) run_recurrent(p, p.plan.chunked || p.plan.tiled ? p.plan.recurrent_tokens : kAnyLength, stream);
  if (p.plan.tiled) {
    tiled_states(p, stream);
    tiled_outputs(p, stream);
  }
  if (!p.plan.chunked) return;
  if (p.plan.chunks.channel)
    prepare_channel_chunks(p, stream);
  else
    prepare_chunks(p, stream);
  scan_chunks(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

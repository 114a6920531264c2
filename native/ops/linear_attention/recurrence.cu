// The column of every recurrence: which of the three forms takes which sequences.
#include "ops/linear_attention/chunk_run.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

#if !CUL_EMULATED
// Whether the checkpoints of all sequences have room; a trap is the only way a kernel can fail its device.
//
// Computes: nothing; traps where the checkpoints of all sequences have no room
// Shapes:   cu_seqlens i32 [N+1]
// Layouts:  contiguous
// Tiles:    one thread's work
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of cu_seqlens; a debug check
// Source:   ours
__global__ void validate_checkpoints_kernel(RecurrenceParams p) {
  if (first_checkpoint(p, p.sequences.count) > p.checkpoint_count) __trap();
}
#endif

void validate(const RecurrenceParams& p, NativeStream stream) {
#if CUL_EMULATED
  stream->enqueue([p] { require_valid(p); });
#else
  validate_sequences(p.op, p.sequences, stream);
  if (p.checkpoint_every) launch(validate_checkpoints_kernel, dim3(1), dim3(32), 0, stream, p);
#endif
}

}  // namespace

void recurrence(const RecurrenceParams& p, NativeStream stream) {
  if (p.sequences.count == 0) return;
  if (p.validate) validate(p, stream);
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

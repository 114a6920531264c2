#include "ops/linear_attention/recurrence_plan.h"

#include "backends/backend.h"
#include "ops/linear_attention/recurrence.h"

namespace culebra {

RecurrencePlan plan_recurrence(const Call& call, const RecurrenceParams& p) {
  RecurrencePlan plan;
  if (call.caps().backend == CUL_BACKEND_CPU) return plan;
  const Sequences& s = p.sequences;
  const bool packed = s.cu_seqlens != nullptr;
  const char* reason = "sequences of more than 16 tokens in chunks of 64, others token by token";
  if (p.dtype == DType::f32)
    reason = "token by token: f32 operands";
  else if (p.key_dim > kMaxChunkKeys)
    reason = "token by token: K above 128";
  else if (s.tokens <= kRecurrentTokens)
    reason = "token by token: no more than 16 tokens";
  else
    plan.chunked = true;
  if (plan.chunked) {
    plan.recurrent = packed;
    ChunkLayout& c = plan.chunks;
    c.keys = p.key_dim <= 64 ? 64 : 128;
    c.delta = p.delta();
    c.split = c.delta && p.dtype == DType::bf16;
    c.channel = p.decay == Decay::channel;
    c.slots = ChunkLayout::slots_of(s.tokens, s.count, packed);
    plan.workspace = call.workspace(static_cast<uint64_t>(c.slots * p.value_heads * c.record_bytes()));
  } else {
    call.workspace(0);
  }
  if (call.plan_only()) call.explain(format("%s: %s", p.op, reason));
  return plan;
}

}  // namespace culebra

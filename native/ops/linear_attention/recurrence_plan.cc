#include "ops/linear_attention/recurrence_plan.h"

#include <algorithm>
#include <cmath>

#include "backends/backend.h"
#include "ops/linear_attention/recurrence.h"

namespace culebra {
namespace {

constexpr int64_t kRowsPerWarp = 16;
constexpr int kMaxWarps = 4;
// Fewer segments than this do not repay running every chunk twice.
constexpr int64_t kFewestSegments = 4;
// A product of the chain over segments takes about as long as this many chunks.
constexpr double kChunksPerProduct = 3;

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

ScanPlan plan_scan(const RecurrenceParams& p, const ChunkLayout& chunks, int multiprocessors, int shared_bytes) {
  ScanPlan plan;
  const Sequences& s = p.sequences;
  const int64_t heads = s.count * p.value_heads, warps_a_head = ceil_divide(p.value_dim, kRowsPerWarp);
  plan.warps = kMaxWarps;
  const auto slices = [&] { return ceil_divide(warps_a_head, plan.warps); };
  while (plan.warps > 1 && (heads * slices() < multiprocessors || plan.warps / 2 >= warps_a_head)) plan.warps /= 2;
  plan.slices = slices();
  plan.tiles = {chunks.keys, static_cast<int>(kRowsPerWarp) * plan.warps, chunks.delta, chunks.split, chunks.channel && chunks.delta};
  // Two chunks in shared memory, or several blocks of one.
  const bool several = heads * plan.slices > multiprocessors;
  plan.stages = !several && 2 * plan.tiles.bytes() <= shared_bytes ? 2 : 1;

  if (p.batch_invariant || s.count == 0) return plan;
  const int64_t warps = heads * warps_a_head, length = ceil_divide(ceil_divide(s.tokens, s.cu_seqlens ? s.count : 1), kChunk);
  // As many segments as the device has room for a warp on each of its 4 schedulers a multiprocessor, and as balance both costs.
  const int64_t added = chunks.delta ? warps + heads * chunks.keys / kRowsPerWarp : warps;
  const int64_t room = 4 * multiprocessors / added;
  const auto balance = static_cast<int64_t>(std::sqrt(2 * static_cast<double>(length) / kChunksPerProduct));
  const int64_t segments = std::min(room, balance);
  if (segments < kFewestSegments) return plan;
  plan.segment_chunks = ceil_divide(length, segments);
  plan.segments = ChunkLayout::slots_of(s.tokens, s.count, s.cu_seqlens, plan.segment_chunks * kChunk);
  return plan;
}

TiledPlan plan_tiles(const RecurrenceParams& p, int multiprocessors, int shared_bytes) {
  TiledPlan plan;
  const Sequences& s = p.sequences;
  const auto slots = [&](int64_t unit) { return ChunkLayout::slots_of(s.tokens, s.count, s.cu_seqlens, unit); };
  plan.chunks = slots(kChunk);
  plan.spans = slots(kSpan);
  plan.blocks = slots(kQueryRows);
  plan.keys = static_cast<int32_t>(ceil_divide(p.key_dim, 64) * 64);
  plan.states_at = ceil_divide(plan.chunks * p.value_heads * static_cast<int64_t>(sizeof(TiledRecord)), 256) * 256;
  plan.bytes = plan.states_at + plan.spans * p.value_heads * p.value_dim * plan.keys * 2;
  const int64_t tiles = s.count * p.value_heads * ceil_divide(p.value_dim, 128) * ceil_divide(plan.keys, 128);
  plan.state_warps = plan.keys <= 64 || tiles < multiprocessors ? 4 : 8;
  plan.state_stages = plan.state_bytes(3) <= shared_bytes ? 3 : 2;
  plan.output_stages = plan.output_bytes(3) <= shared_bytes ? 3 : plan.output_bytes(2) <= shared_bytes ? 2 : 0;
  return plan;
}

RecurrencePlan plan_recurrence(const Call& call, const RecurrenceParams& p) { return plan_recurrence(call, p, 0).plan; }

OwnWorkspace plan_recurrence(const Call& call, const RecurrenceParams& p, uint64_t own_bytes) {
  RecurrencePlan plan;
  const DeviceCaps& caps = call.caps();
  if (caps.backend == CUL_BACKEND_CPU) return {plan, own_bytes ? call.workspace(own_bytes) : nullptr};
  const Sequences& s = p.sequences;
  const bool packed = s.cu_seqlens != nullptr;
  plan.recurrent_tokens = p.plan.recurrent_tokens;
  int64_t bytes = 0;
  std::string reason;
  plan.tiles = plan_tiles(p, caps.multiprocessors, caps.shared_bytes_per_block);
  const bool plain = !p.delta() && p.decay != Decay::channel;
  if (p.dtype == DType::f32)
    reason = "token by token: f32 operands";
  else if (p.key_dim > kMaxChunkKeys && s.tokens > kRecurrentTokens && plain && plan.tiles.output_stages)
    plan.tiled = true;
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
    c.slots = ChunkLayout::slots_of(s.tokens, s.count, packed, kChunk);
    plan.scan = plan_scan(p, c, caps.multiprocessors, caps.shared_bytes_per_block);
    bytes = ceil_divide(c.slots * p.value_heads * c.record_bytes(), 256) * 256;
    plan.scan.partials_at = bytes;
    bytes += plan.scan.segments * p.value_heads * (p.value_dim + (c.delta ? c.keys : 0)) * c.keys * 4;
    reason = format("chunks of 64 tokens, %d rows of the state a block, %d in shared memory at once", plan.scan.tiles.values,
                    plan.scan.stages);
    if (plan.scan.segment_chunks)
      reason += format("; sequences are cut after %lld chunks, since whole ones leave multiprocessors idle",
                       static_cast<long long>(plan.scan.segment_chunks));
    if (packed && plan.recurrent_tokens) reason += "; sequences of no more than 16 tokens token by token";
  }
  if (plan.tiled) {
    plan.recurrent = packed;
    bytes = plan.tiles.bytes;
    reason = format("spans of %d tokens, states between them %d columns wide, tiles of 128 x %d in registers", kSpan, plan.tiles.keys,
                    16 * plan.tiles.state_warps);
    if (packed && plan.recurrent_tokens) reason += "; sequences of no more than 16 tokens token by token";
  }
  void* const own = call.workspace(own_bytes + static_cast<uint64_t>(bytes));
  plan.workspace = WorkspaceParts::at<char>(own, own_bytes);
  if (call.plan_only()) call.explain(format("%s: %s", p.op, reason.c_str()));
  return {plan, own};
}

}  // namespace culebra

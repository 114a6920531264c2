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

// wgmma shortens the chain over chunks, at the price of images. It pays where that chain is what bounds: with the delta rule, on a device that
// has a block for each multiprocessor or fewer (with batch_invariant, which must not look at the batch, always); and where images
// cost few bytes: with gates of channels the records hold q and k anyway, else several value heads must share them. Fewer rows of the state
// than 48 would leave most of wgmma's 64 idle.
bool wgmma_pays(const RecurrenceParams& p, const ChunkLayout& chunks, const DeviceCaps& caps) {
  const int64_t blocks = p.sequences.count * p.value_heads * ceil_divide(p.value_dim, 64);
  return caps.compute_major == 9 && caps.compute_minor == 0 && chunks.delta && p.value_dim >= 48 &&
         (chunks.channel || p.value_heads >= 2 * p.key_heads) && (p.batch_invariant || blocks <= caps.multiprocessors);
}

}  // namespace

ScanPlan plan_scan(const RecurrenceParams& p, const ChunkLayout& chunks, int multiprocessors, int shared_bytes) {
  ScanPlan plan;
  const Sequences& s = p.sequences;
  const int64_t heads = s.count * p.value_heads, warps_a_head = ceil_divide(p.value_dim, kRowsPerWarp);
  plan.hopper = chunks.images;
  plan.warps = kMaxWarps;
  const auto slices = [&] { return ceil_divide(warps_a_head, plan.warps); };
  while (!plan.hopper && plan.warps > 1 && (heads * slices() < multiprocessors || plan.warps / 2 >= warps_a_head)) plan.warps /= 2;
  plan.slices = slices();
  plan.tiles = {chunks.keys, static_cast<int>(kRowsPerWarp) * plan.warps, chunks.delta, chunks.split, chunks.channel && chunks.delta};
  // Two chunks in shared memory, or several blocks of one.
  const bool several = heads * plan.slices > multiprocessors;
  plan.stages = !several && 2 * plan.tiles.bytes() <= shared_bytes ? 2 : 1;

  if (p.batch_invariant || s.count == 0) return plan;
  const int64_t rows = plan.hopper ? plan.tiles.values : kRowsPerWarp, warps = heads * ceil_divide(p.value_dim, rows);
  const int64_t length = ceil_divide(ceil_divide(s.tokens, s.cu_seqlens ? s.count : 1), kChunk);
  // As many segments as the device has room for, a warp on each of a multiprocessor's 4 schedulers or a warpgroup on all of them, and as
  // balance both costs.
  const int64_t added = chunks.delta ? warps + heads * chunks.keys / rows : warps;
  const int64_t room = (plan.hopper ? 1 : 4) * multiprocessors / added;
  const auto balance = static_cast<int64_t>(std::sqrt(2 * static_cast<double>(length) / kChunksPerProduct));
  const int64_t segments = std::min(room, balance);
  if (segments < kFewestSegments) return plan;
  plan.segment_chunks = ceil_divide(length, segments);
  plan.segments = ChunkLayout::slots_of(s.tokens, s.count, s.cu_seqlens, plan.segment_chunks * kChunk);
  return plan;
}

RecurrencePlan plan_recurrence(const Call& call, const RecurrenceParams& p) { return plan_recurrence(call, p, 0).plan; }

OwnWorkspace plan_recurrence(const Call& call, const RecurrenceParams& p, uint64_t own_bytes) {
  RecurrencePlan plan;
  const DeviceCaps& caps = call.caps();
  if (caps.backend == CUL_BACKEND_CPU) return {plan, own_bytes ? call.workspace(own_bytes) : nullptr};
  const Sequences& s = p.sequences;
  const bool packed = s.cu_seqlens != nullptr;
  int64_t bytes = 0;
  std::string reason;
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
    c.images = wgmma_pays(p, c, caps);
    c.slots = ChunkLayout::slots_of(s.tokens, s.count, packed, kChunk);
    plan.scan = plan_scan(p, c, caps.multiprocessors, caps.shared_bytes_per_block);
    bytes = ceil_divide(c.slots * p.value_heads * c.record_bytes(), 256) * 256;
    c.key_records_at = bytes;
    bytes += c.slots * p.key_heads * c.key_record_bytes();
    plan.scan.partials_at = bytes;
    bytes += plan.scan.segments * p.value_heads * (p.value_dim + (c.delta ? c.keys : 0)) * c.keys * 4;
    reason = plan.scan.hopper ? std::string("chunks of 64 tokens, wgmma on images, 64 rows of the state a block")
                              : format("chunks of 64 tokens, mma.sync, %d rows of the state a block, %d chunks in shared memory at once",
                                       plan.scan.tiles.values, plan.scan.stages);
    if (plan.scan.segment_chunks)
      reason += format("; sequences are cut after %lld chunks, since whole ones leave multiprocessors idle",
                       static_cast<long long>(plan.scan.segment_chunks));
    if (packed) reason += "; sequences of no more than 16 tokens token by token";
  }
  void* const own = call.workspace(own_bytes + static_cast<uint64_t>(bytes));
  plan.workspace = WorkspaceParts::at<char>(own, own_bytes);
  if (call.plan_only()) call.explain(format("%s: %s", p.op, reason.c_str()));
  return {plan, own};
}

}  // namespace culebra

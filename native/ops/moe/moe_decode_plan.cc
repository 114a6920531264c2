#include <algorithm>
#include <utility>

#include "ops/moe/moe_decode.h"
#include "ops/moe/moe_mlp.h"

namespace culebra {
namespace {

using Shape = MoeDecodeShape;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Elements of a row in shared memory: whole steps, and so much more that the rows of eight tokens begin in different banks.
int64_t pitch(int64_t width, int32_t storage) {
  return round_up(width, 128) + (storage == CUL_EXPERTS_HALF ? 8 : storage == CUL_EXPERTS_F8 ? 16 : 32);
}

}  // namespace

MoeDecodePlan plan_moe_decode(const MoeMlpOperands& p, const DeviceCaps& caps, std::string* reason) {
  MoeDecodePlan plan;
  if (p.tokens == 0 || p.width == 0) {
    *reason = "nothing to do";
    return plan;
  }
  if (p.batch_invariant || p.tokens > Shape::kColumns) {
    *reason = p.batch_invariant ? "one order of sums for any number of tokens" : "many tokens";
    return plan;
  }
  const int32_t storage = p.w13.storage;
  if (p.experts > Shape::kMaxExperts) {
    *reason = format("more than %lld experts", static_cast<long long>(Shape::kMaxExperts));
    return plan;
  }
  plan.side_groups = storage != CUL_EXPERTS_INT4 ? 0 : p.w13.group < 128 && p.group_bits >= 0 ? 128 >> p.group_bits : 1;
  plan.stage_bytes = Shape::kUnitRows * Shape::kStepBytes + (storage == CUL_EXPERTS_F8 ? 128 : 256 * plan.side_groups);
  plan.x_pitch = pitch(p.width, storage);
  plan.hidden_pitch = pitch(p.expert_width, storage);
  plan.hidden_stride = round_up(p.expert_width, 8);
  const int64_t most = std::min<int64_t>(p.tokens, Shape::kColumns);
  for (int64_t tokens = most; tokens > 0 && !plan.suits; --tokens) {
    const int64_t slots = tokens * p.slots_per_token, selected = std::min(p.experts, slots);
    if (slots > Shape::kMaxSlots) continue;
    int64_t at = 0;
    const auto take = [&](int64_t bytes) { return std::exchange(at, at + round_up(bytes, 128)); };
    take(8 * ceil_div(p.experts, 32) + 4);
    plan.list_at = take(4 * selected);
    plan.routing_at = take(p.routed ? 8 * slots : 0);
    const int64_t scratch = p.routed ? 4 * Shape::kWarps * (p.route.experts + (p.route.groups > 1 ? p.route.groups : 0)) : 0;
    plan.ring_at = take(std::max<int64_t>(int64_t{Shape::kWarps} * Shape::kStages * plan.stage_bytes, scratch));
    plan.sums_at = take(Shape::kSumBytes);
    const int64_t rows = 2 * tokens * std::max(plan.x_pitch, plan.hidden_pitch);
    plan.rows_at = take(rows);
    plan.shared_bytes = at;
    plan.suits = at <= caps.shared_bytes_per_block;
    plan.tokens = static_cast<int32_t>(tokens);
    plan.hidden_experts = rows / (2 * tokens * plan.hidden_pitch);
    plan.outputs_at = round_up(2 * selected * tokens * plan.hidden_stride, 256);
    plan.workspace_bytes = static_cast<uint64_t>(plan.outputs_at + 4 * selected * tokens * p.width);
    const int64_t units = selected * std::max(ceil_div(p.expert_width, Shape::kUnitRows / 2), ceil_div(p.width, Shape::kUnitRows));
    plan.blocks = static_cast<int32_t>(std::clamp<int64_t>(units, 1, caps.multiprocessors));
  }
  if (!plan.suits) {
    if (most > 0)
      *reason = format("one token of D = %lld and I = %lld with its %lld slots takes more than the %d bytes of shared memory of a block",
                       static_cast<long long>(p.width), static_cast<long long>(p.expert_width),
                       static_cast<long long>(p.slots_per_token), caps.shared_bytes_per_block);
    return plan;
  }
  const int64_t launches = ceil_div(p.tokens, plan.tokens);
  if (launches > 1 && p.tokens * p.slots_per_token > p.experts) {
    *reason = format("%lld launches would read experts more than once", static_cast<long long>(launches));
    plan.suits = false;
    return plan;
  }
  *reason = format("few tokens: one launch of %d blocks that run at once%s, %lld bytes of shared memory each", plan.blocks,
                   launches > 1 ? format(" for each %d of the %lld tokens", plan.tokens, static_cast<long long>(p.tokens)).c_str() : "",
                   static_cast<long long>(plan.shared_bytes));
  return plan;
}

}  // namespace culebra

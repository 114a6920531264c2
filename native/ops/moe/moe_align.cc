#include "ops/moe/moe_align.h"

#include <algorithm>

#include "backends/backend.h"

namespace culebra {
namespace {

// Slots that a thread (cpu) or a warp passes one after the other. More chunks than this would only make a longer sum over them.
constexpr int64_t kCpuChunk = 4096, kCpuChunks = 32, kWarpChunk = 512, kWarpChunks = 512;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

MoeAlignParams check_moe_align(const Call& call, const cul_moe_align_args& args) {
  const View ids = call.required(args.ids, "ids"), map = call.optional(args.expert_map, "expert_map");
  const View sorted = call.required(args.sorted, "sorted"), block_expert = call.required(args.block_expert, "block_expert"),
             offsets = call.required(args.offsets, "offsets"), inverse = call.required(args.inverse, "inverse"),
             n_padded = call.required(args.n_padded, "n_padded");
  call.rank(ids, 2, "[T,k]");
  for (const View* v : {&ids, &map, &sorted, &block_expert, &inverse, &n_padded})
    if (*v) call.dtype(*v, {DType::i32});
  call.dtype(offsets, {DType::i64});
  call.one_of(args.block, {8, 16, 32, 64, 128}, "block");
  if (args.experts < 1) call.refuse(CUL_RANGE, "experts is %d; it must be 1 or more", args.experts);
  if (args.local_experts < 1 || args.local_experts > args.experts)
    call.refuse(CUL_RANGE, "local_experts is %d; it must be 1 to experts = %d", args.local_experts, args.experts);
  if (map) call.shape(map, {args.experts}, "[experts]");
  if (!map && args.local_experts != args.experts)
    call.refuse(CUL_NULL_POINTER, "expert_map is required: it says which %d of the %d experts are local", args.local_experts,
                args.experts);

  const int64_t slots = ids[0] * ids[1], block = args.block;
  const int64_t needed = ceil_div(slots + args.local_experts * (block - 1), block) * block;
  if (needed > INT32_MAX)
    call.refuse(CUL_UNSUPPORTED, "ids is %s: with %d experts and blocks of %d, sorted would have %lld entries; at most 2^31 - 1",
                shape_text(ids).c_str(), args.local_experts, args.block, static_cast<long long>(needed));
  call.rank(sorted, 1, "[C]");
  if (sorted[0] < needed || sorted[0] % block || sorted[0] > INT32_MAX)
    call.refuse(CUL_SHAPE,
                "sorted is %s; it must be [C], C a multiple of block = %d and at least %lld for the %lld slots of %d experts",
                shape_text(sorted).c_str(), args.block, static_cast<long long>(needed), static_cast<long long>(slots),
                args.local_experts);
  call.shape(block_expert, {sorted[0] / block}, "[C / block]");
  call.shape(offsets, {args.local_experts + int64_t{1}}, "[local_experts + 1]");
  call.shape(inverse, {slots}, "[T k]");
  call.shape(n_padded, {1}, "[1]");
  const View* const outs[] = {&sorted, &block_expert, &offsets, &inverse, &n_padded};
  for (const View* out : outs) {
    for (const View* in : {&ids, &map}) call.disjoint(*out, *in);
    for (const View* other : outs)
      if (other < out) call.disjoint(*out, *other);
  }

  MoeAlignParams p;
  p.ids = ids.as<const int32_t>();
  p.ids_stride = ids.stride_of(0);
  p.expert_map = map.as<const int32_t>();
  p.sorted = sorted.as<int32_t>();
  p.block_expert = block_expert.as<int32_t>();
  p.offsets = offsets.as<int64_t>();
  p.inverse = inverse.as<int32_t>();
  p.n_padded = n_padded.as<int32_t>();
  p.tokens = ids[0];
  p.k = ids[1];
  p.capacity = sorted[0];
  p.blocks = block_expert[0];
  p.experts = args.experts;
  p.local_experts = args.local_experts;
  p.block = args.block;
  p.validate = call.validate();
  divide_slots(p, call.caps().backend == CUL_BACKEND_CPU);
  if (call.plan_only())
    call.explain(format("%lld slots in %lld chunks of %lld; %d counters a chunk", static_cast<long long>(slots),
                        static_cast<long long>(p.chunks), static_cast<long long>(p.chunk), p.local_experts));
  p.workspace = static_cast<int32_t*>(call.workspace(p.workspace_bytes()));
  return p;
}

void divide_slots(MoeAlignParams& p, bool cpu) {
  p.chunk = std::max(cpu ? kCpuChunk : kWarpChunk, ceil_div(ceil_div(p.slots(), cpu ? kCpuChunks : kWarpChunks), 32) * 32);
  p.chunks = ceil_div(p.slots(), p.chunk);
}

std::string MoeAlignParams::invalid_text(int64_t i) const {
  if (i < slots())
    return format("ids[%lld, %lld] = %d; it must be -1 or below the %d experts", static_cast<long long>(i / k),
                  static_cast<long long>(i % k), id(i), experts);
  const int64_t e = i - slots();
  return format("expert_map[%lld] = %d; it must be -1 or below the %d local experts", static_cast<long long>(e), expert_map[e],
                local_experts);
}

}  // namespace culebra

#include "ops/gemm/linear_logprob.h"

#include <algorithm>
#include <cmath>

#include "backends/backend.h"
#include "ops/gemm/hopper/hopper_plan.h"
#include "ops/gemm/linear_logprob_cpu.h"
#include "ops/gemm/tile/tile_gemm.h"

namespace culebra {

using tile_plan::ceil_div;

LogprobParams check_linear_logprob(const Call& call, const cul_linear_logprob_args& args) {
  const View e = call.required(args.e, "e"), c = call.required(args.c, "c"), bias = call.optional(args.bias, "bias"),
             targets = call.required(args.targets, "targets"), logprob = call.required(args.logprob, "logprob"),
             lse = call.required(args.lse, "lse");
  call.rank(e, 2, "[N,D]");
  call.rank(c, 2, "[V,D]");
  call.dtype(e, {DType::f32, DType::f16, DType::bf16});
  call.same_dtype(c, e);
  if (e[1] != c[1])
    call.refuse(CUL_SHAPE, "e is %s but c is %s; their last dimensions must be equal", shape_text(e).c_str(), shape_text(c).c_str());
  if (bias) {
    call.same_dtype(bias, e);
    call.shape(bias, {c[0]}, "[V]");
  }
  call.dtype(targets, {DType::i64});
  call.shape(targets, {e[0]}, "[N]");
  for (const View* out : {&logprob, &lse}) {
    call.dtype(*out, {DType::f32});
    call.shape(*out, {e[0]}, "[N]");
    for (const View* in : {&e, &c, &bias, &targets}) call.disjoint(*out, *in);
  }
  call.disjoint(logprob, lse);
  if (!(args.softcap >= 0) || std::isinf(args.softcap))
    call.refuse(CUL_RANGE, "softcap is %g; it must be positive and finite, or 0 for none", static_cast<double>(args.softcap));
  if (args.vocab_start < 0)
    call.refuse(CUL_RANGE, "vocab_start is %lld; it must not be negative", static_cast<long long>(args.vocab_start));

  LogprobParams p{};
  p.e = e.data;
  p.lde = e.stride_of(0);
  p.c = c.data;
  p.ldc = c.stride_of(0);
  p.bias = bias.data;
  p.targets = targets.as<const int64_t>();
  p.logprob = logprob.as<float>();
  p.lse = lse.as<float>();
  p.n = e[0];
  p.v = c[0];
  p.d = e[1];
  p.ignore_index = args.ignore_index;
  p.vocab_start = args.vocab_start;
  p.softcap = args.softcap;
  p.dtype = e.dtype;
  p.batch_invariant = call.batch_invariant();
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::logprob_tile(p.n, p.v, p.d).bytes);
    return p;
  }
  std::string reason;
  p.plan = plan_linear_logprob(p, call.caps(), &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

// Blocks that run together share their words in L2: 16 tiles of tokens side by side. As many ranges as fill the device with them;
// more would only make more partials.
LogprobPlan plan_linear_logprob(const LogprobParams& p, const DeviceCaps& caps, std::string* reason) {
  constexpr int64_t kBand = 16, kInvariantRanges = 32;
  LogprobPlan plan;
  const bool f32 = p.dtype == DType::f32, few = p.n <= HalfTile16::kTokens && !p.batch_invariant;
  // One row needs no stride, but alone it must not be another design's than in a batch of its stride.
  const bool aligned = (tile_plan::copy_engine_takes(p.lde, 8) || (p.n == 1 && !p.batch_invariant)) && (tile_plan::copy_engine_takes(p.ldc, 8) || p.v == 1);
  const char* const obstacle = f32 ? "f32" : few ? "few tokens" : p.d == 0 ? "d is empty" : tile_plan::not_hopper(caps, aligned);
  plan.design = obstacle ? GemmDesign::marlin : GemmDesign::hopper;
  const int32_t words = f32 ? 64 : HalfTile128::kColumns;  // HopperHalfTile128's as well
  plan.tile_tokens = f32 ? 64 : few ? HalfTile16::kTokens : HalfTile128::kTokens;
  const int64_t tiles = ceil_div(p.v, words), token_tiles = ceil_div(p.n, plan.tile_tokens);
  const int64_t blocks_per_sm = f32 ? 4 : 2;
  const int64_t wanted = p.batch_invariant ? kInvariantRanges
                                           : ceil_div(caps.multiprocessors * blocks_per_sm, std::clamp<int64_t>(token_tiles, 1, kBand));
  plan.tiles_per_range = static_cast<int32_t>(ceil_div(tiles, std::clamp<int64_t>(wanted, 1, std::max<int64_t>(tiles, 1))));
  plan.ranges = tiles ? static_cast<int32_t>(ceil_div(tiles, plan.tiles_per_range)) : 0;
  plan.workspace_bytes = static_cast<uint64_t>(p.n * plan.ranges) * 2 * sizeof(float);
  *reason = f32        ? std::string("FMAs (f32 uses no TF32); ")
            : obstacle ? format("mma.sync and cp.async (%s); ", obstacle)
                       : std::string("wgmma and bulk copies; ");
  *reason += format("%d x %d tiles; the vocabulary of %lld in %d ranges of %d words%s", plan.tile_tokens, words,
                    static_cast<long long>(p.v), plan.ranges, plan.tiles_per_range * words,
                    p.batch_invariant ? " whatever N is: batch invariant" : " to fill the device");
  return plan;
}

}  // namespace culebra

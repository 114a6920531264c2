#include "ops/gemm/sparse_mlp.h"

#include <algorithm>

#include "backends/backend.h"
#include "ops/gemm/sparse_mlp_cpu.h"

namespace culebra {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

SparseMlpParams check_sparse_mlp(const Call& call, const cul_sparse_mlp_args& args) {
  const View x = call.required(args.x, "x"), gate = call.required(args.w_gate, "w_gate"), up = call.required(args.w_up, "w_up"),
             down = call.required(args.w_down_t, "w_down_t"), y = call.required(args.y, "y"),
             active = call.optional(args.active, "active");
  call.rank(x, 2, "[B,D]");
  call.rank(gate, 2, "[I,D]");
  call.dtype(x, {DType::f16, DType::bf16});
  for (const View* w : {&gate, &up, &down}) call.same_dtype(*w, x);
  call.same_dtype(y, x);
  if (x[0] > kSparseMlpMaxRows)
    call.refuse(CUL_SHAPE, "x is %s; at most %lld rows share the rows that they need", shape_text(x).c_str(),
                static_cast<long long>(kSparseMlpMaxRows));
  if (gate[1] != x[1])
    call.refuse(CUL_SHAPE, "x is %s but w_gate is %s; their last dimensions must be equal", shape_text(x).c_str(),
                shape_text(gate).c_str());
  call.same_shape(up, gate);
  call.same_shape(down, gate);
  call.shape(y, {x[0], x[1]}, "[B,D]");
  call.distinct(y);
  if (active) {
    call.dtype(active, {DType::i32});
    call.shape(active, {x[0]}, "[B]");
    call.disjoint(active, y);
  }
  for (const View* in : {&x, &gate, &up, &down}) {
    call.disjoint(y, *in);
    if (active) call.disjoint(active, *in);
  }
  if (!(args.threshold >= 0)) call.refuse(CUL_RANGE, "threshold is %g; it must not be negative", static_cast<double>(args.threshold));

  SparseMlpParams p{};
  p.x = x.data;
  p.ldx = x.stride_of(0);
  p.w_gate = gate.data;
  p.ld_gate = gate.stride_of(0);
  p.w_up = up.data;
  p.ld_up = up.stride_of(0);
  p.w_down_t = down.data;
  p.ld_down = down.stride_of(0);
  p.y = y.data;
  p.ldy = y.stride_of(0);
  p.active = active.as<int32_t>();
  p.rows = x[0];
  p.d = x[1];
  p.inner = gate[0];
  p.threshold = args.threshold;
  p.dtype = x.dtype;
  p.batch_invariant = call.batch_invariant();
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::sparse_mlp_workspace(p.rows, p.d, p.inner).bytes);
    return p;
  }
  std::string reason;
  p.plan = plan_sparse_mlp(p.rows, p.d, p.inner, call.batch_invariant(), call.caps().multiprocessors, &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

SparseMlpPlan plan_sparse_mlp(int64_t rows, int64_t d, int64_t inner, bool batch_invariant, int multiprocessors, std::string* reason) {
  constexpr int64_t kBlocksPerSm = 4, kColumns = 512;
  SparseMlpPlan plan;
  plan.rows_at_once = static_cast<int32_t>(batch_invariant ? std::min<int64_t>(rows, 1) : rows);
  if (rows == 0) return plan;
  const int64_t slots = multiprocessors * kBlocksPerSm, least = std::max<int64_t>(ceil_div(inner, kSparseMlpSegmentRows), 1);
  plan.column_tiles = static_cast<int32_t>(ceil_div(d, kColumns));
  plan.up_segments = static_cast<int32_t>(std::max(std::min(slots, ceil_div(inner, 8)), least));
  plan.down_segments = static_cast<int32_t>(std::max(std::min(slots / std::max(plan.column_tiles, 1), ceil_div(inner, 32)), least));
  uint64_t bytes = 0;
  const auto array = [&](int64_t elements) {
    const uint64_t at = bytes;
    bytes += static_cast<uint64_t>(elements * 4 + 255) / 256 * 256;
    return at;
  };
  const int64_t together = plan.rows_at_once;
  array(together * inner);  // h
  plan.bits_at = array(together * ceil_div(inner, 32));
  plan.products_at = array(together * inner);
  plan.counters_at = array(plan.column_tiles);
  plan.partials_at = array(plan.down_segments * together * d);
  plan.workspace_bytes = bytes;
  *reason = format("the needed rows of w_up in %d segments, those of w_down_t in %d per 512 columns; %s", plan.up_segments,
                   plan.down_segments,
                   plan.rows_at_once < rows ? "one row of x after the other: batch invariant" : "rows of x share what any of them needs");
  return plan;
}

}  // namespace culebra

#include "ops/sparse_attention/sparse_linear_attention.h"

#include "ops/sparse_attention/hopper_lists.h"

namespace culebra {

SparseLinearParams check_sparse_linear_attention(const Call& call, const cul_sparse_linear_attention_args& args) {
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v"),
             proj_w = call.optional(args.proj_w, "proj_w"), proj_b = call.optional(args.proj_b, "proj_b"),
             o = call.required(args.o, "o");
  if (proj_b && !proj_w) call.refuse(CUL_NULL_POINTER, "proj_w is required: proj_b is given");
  call.rank(q, 4, "[B,H,L,D]");
  call.dtype(q, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&k, &v, &proj_w, &proj_b, &o})
    if (*x) call.same_dtype(*x, q);
  for (const View* x : {&k, &v, &o}) call.same_shape(*x, q);
  const int64_t D = q[3];
  if (D < 1) call.refuse(CUL_SHAPE, "q is %s; heads must not be empty", shape_text(q).c_str());
  if (D > 256) call.refuse(CUL_UNSUPPORTED, "q is %s; D is at most 256", shape_text(q).c_str());
  if (proj_w) call.shape(proj_w, {D, D}, "[D,D]");
  if (proj_b) call.shape(proj_b, {D}, "[D]");
  if (args.block < 16 || args.block > 128 || args.block % 16)
    call.refuse(CUL_RANGE, "block is %d; it must be a multiple of 16 from 16 to 128", args.block);
  if (!(args.critical >= 0 && args.critical <= 1))
    call.refuse(CUL_RANGE, "critical is %g; it must be 0 to 1", args.critical);
  if (!(args.negligible >= 0 && args.negligible <= 1))
    call.refuse(CUL_RANGE, "negligible is %g; it must be 0 to 1", args.negligible);
  call.one_of(args.phi, {CUL_SLA_SOFTMAX, CUL_SLA_ELU1, CUL_SLA_RELU}, "phi");
  call.one_of(args.mode, {CUL_SLA_PAPER, CUL_SLA_COMPLEMENT, CUL_SLA_ALL}, "mode");
  if (!(args.eps >= 0) || !std::isfinite(args.eps))
    call.refuse(CUL_RANGE, "eps is %g; it must be 0 or more", static_cast<double>(args.eps));
  if (!std::isfinite(args.scale))
    call.refuse(CUL_RANGE, "scale is %g; it must be finite", static_cast<double>(args.scale));
  check_outputs(call, {&o}, {&q, &k, &v, &proj_w, &proj_b});

  const auto rows = [](const View& x) {
    return SparseLinearParams::Rows{x.data, x.stride_of(0), x.stride_of(1), x.stride_of(2)};
  };
  SparseLinearParams p;
  p.dtype = q.dtype;
  p.batch = q[0];
  p.heads = q[1];
  p.length = q[2];
  p.dim = D;
  p.block = args.block;
  p.blocks = (p.length + p.block - 1) / p.block;
  const auto share = [&](double of) { return static_cast<int64_t>(std::floor(of * static_cast<double>(p.blocks))); };
  p.critical = std::min(std::max<int64_t>(share(args.critical), 1), p.blocks);
  p.negligible = std::min(share(args.negligible), p.blocks - p.critical);
  p.q = rows(q);
  p.k = rows(k);
  p.v = rows(v);
  p.o = rows(o);
  p.proj_w = proj_w.data;
  p.proj_stride = proj_w ? proj_w.stride_of(0) : 0;
  p.proj_b = proj_b.data;
  p.phi = args.phi;
  p.mode = args.mode;
  p.eps = args.eps;
  p.scale = args.scale == 0 ? 1 / std::sqrt(static_cast<float>(D)) : args.scale;
  const auto aligned = [&](const View& x) {
    for (int i = 0; i < 3; ++i)
      if (x[i] > 1 && x.stride_of(i) * static_cast<int64_t>(size_of(x.dtype)) % 16) return false;
    return D * static_cast<int64_t>(size_of(x.dtype)) % 16 == 0;
  };
  p.aligned = aligned(q) && aligned(k) && aligned(v) && aligned(o);
  p.proj_aligned = p.proj_stride * static_cast<int64_t>(size_of(q.dtype)) % 16 == 0;
  p.plan = plan_sparse_linear_attention(p, call.caps().backend == CUL_BACKEND_CPU, call.caps().multiprocessors);
  const bool in_line = p.heads_in_line(p.q) && p.heads_in_line(p.k) && p.heads_in_line(p.v) && p.heads_in_line(p.o);
  const int64_t all_heads = p.batch * p.heads;
  p.plan.hopper = in_line && !not_hopper_lists({p.dtype, D, D, p.block, p.block, p.length, p.length, all_heads, all_heads, p.in_line(p.q),
                                                p.in_line(p.k), p.in_line(p.v), p.aligned, p.scale},
                                               call.caps());
  if (call.plan_only())
    call.explain(format("%lld blocks of %lld: a query block has %lld critical and %lld negligible ones%s%s",
                        static_cast<long long>(p.blocks), static_cast<long long>(p.block),
                        static_cast<long long>(p.critical), static_cast<long long>(p.negligible), p.plan.hopper ? "; softmax by wgmma" : "",
                        p.plan.tensor_cores && p.has_linear()
                            ? format("; states on tensor cores, %lld heads at a time", static_cast<long long>(p.plan.heads_at_once)).c_str()
                            : ""));
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

SparseLinearPlan plan_sparse_linear_attention(const SparseLinearParams& p, bool cpu, int multiprocessors) {
  constexpr int64_t kAtOnceBytes = 320 << 10;  // of states and sums, for each multiprocessor: an A100 and an H100 have 380 KB of L2 for each
  SparseLinearPlan plan;
  const int64_t heads = cpu ? std::min<int64_t>(p.batch * p.heads, 1) : p.batch * p.heads;
  const auto array = [&](int64_t elements, int64_t size) {
    const uint64_t at = plan.workspace_bytes;
    plan.workspace_bytes += static_cast<uint64_t>(elements * size + 255) / 256 * 256;
    return at;
  };
  plan.means_at = array(heads * 2 * p.blocks * p.dim, 4);
  const int64_t state = p.has_linear() ? (p.dim + 1) * p.dim : 0;
  if (cpu) {
    plan.classes_at = array(heads * p.blocks * p.blocks, 1);
    plan.states_at = array(heads * p.blocks * state, 4);
    // A query block's states are summed where they are used.
    plan.sums_at = array(p.mode == CUL_SLA_ALL ? heads * state : 0, 4);
    return plan;
  }
  plan.lists_at = array(heads * p.blocks * p.critical, 4);
  plan.tensor_cores = p.dtype != DType::f32 && p.dim % 16 == 0 && p.dim <= 128;
  plan.parts = p.dtype == DType::f16 ? 2 : 1;
  plan.mask_at = array(p.has_linear() ? heads * p.blocks * p.mask_words() : 0, 4);
  const int64_t rows = p.sum_rows(), square = p.has_linear() ? p.dim * p.dim : 0;
  const int64_t state_bytes = plan.tensor_cores ? 2 * plan.parts * (square + (square ? 2 * p.dim : 0)) : 4 * state;
  const int64_t sum_bytes = plan.tensor_cores ? 2 * plan.parts * square : 4 * state;
  const int64_t norm_bytes = plan.tensor_cores && square ? 8 * p.dim : 0;
  const int64_t shared_bytes = std::max(p.blocks * state_bytes, 4 * p.blocks * p.blocks);
  const int64_t head_bytes = std::max<int64_t>(shared_bytes + rows * (sum_bytes + norm_bytes), 1);
  plan.heads_at_once = std::clamp<int64_t>(kAtOnceBytes * multiprocessors / head_bytes, 1, std::max<int64_t>(heads, 1));
  plan.keys_at = plan.states_at = array(std::min(heads, plan.heads_at_once) * shared_bytes, 1);
  plan.sums_at = array(std::min(heads, plan.heads_at_once) * rows * sum_bytes, 1);
  plan.norms_at = array(std::min(heads, plan.heads_at_once) * rows * norm_bytes, 1);
  return plan;
}

}  // namespace culebra

#include "ops/moe/grouped_gemm.h"

#include <algorithm>

#include "backends/backend.h"
#include "culebra/gemm.h"

namespace culebra {
namespace {

// cpu: the f32 rows of a chunk take about this much, so that they stay near the cache.
constexpr int64_t kChunkBytes = int64_t{32} << 20;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

GroupedGemmParams check_moe_grouped_gemm(const Call& call, const cul_moe_grouped_gemm_args& args) {
  call.one_of(args.experts, {CUL_EXPERTS_HALF, CUL_EXPERTS_F8, CUL_EXPERTS_INT4}, "experts");
  call.one_of(args.act, {CUL_EPILOGUE_NONE, CUL_EPILOGUE_SILU_MUL}, "act");
  const int32_t storage = args.experts;
  const bool f8 = storage == CUL_EXPERTS_F8, gated = args.act == CUL_EPILOGUE_SILU_MUL;
  const View a = call.required(args.a, "a"), a_scale = call.optional(args.a_scale, "a_scale"), b = call.required(args.b, "b"),
             b_scales = call.optional(args.b_scales, "b_scales"), b_zeros = call.optional(args.b_zeros, "b_zeros"),
             offsets = call.required(args.offsets, "offsets"), gather = call.optional(args.gather, "gather"),
             c = call.required(args.c, "c");
  check_expert_scales(call, storage, b_scales, b_zeros);
  if (f8 && !a_scale) call.refuse(CUL_NULL_POINTER, "a_scale is required: a is f8 where the experts are");
  if (!f8 && a_scale) call.refuse(CUL_UNSUPPORTED, "a_scale is given, but only experts f8 take a in f8");
  call.rank(a, 2, "[R,K]");
  call.rank(b, 3, storage == CUL_EXPERTS_INT4 ? "[E,N,K/2]" : "[E,N,K]");
  call.rank(c, 2, gated ? "[R,N/2]" : "[R,N]");
  f8 ? call.dtype(a, {DType::f8e4m3}) : call.dtype(a, {DType::f16, DType::bf16});
  call.dtype(c, {DType::f16, DType::bf16, DType::f32});
  call.dtype(offsets, {DType::i64});
  if (gather) call.dtype(gather, {DType::i32});
  if (storage == CUL_EXPERTS_INT4) call.one_of(args.group, {-1, 32, 64, 128}, "group");

  const int64_t experts = b[0], n = b[1], k = a[1];
  GroupedGemmParams p;
  p.b = check_experts(call, storage, args.group, a.dtype, b, b_scales, b_zeros, experts, n, k, "[E,N,K], K as a's (int4: half of it)");
  if (gated && n % 2)
    call.refuse(CUL_SHAPE, "b is %s; for silu_mul its second dimension is gate and up rows, an even number", shape_text(b).c_str());
  if (f8) {
    call.dtype(a_scale, {DType::f32});
    call.shape(a_scale, {a[0], ceil_div(k, 128)}, "[rows of a, ceil(K/128)]");
  }
  call.shape(offsets, {experts + 1}, "[E+1], E as b's");
  if (gather) call.rank(gather, 1, "[R]");
  p.rows = gather ? gather[0] : a[0];
  call.shape(c, {p.rows, gated ? n / 2 : n}, gated ? "[R,N/2]" : "[R,N]");
  call.distinct(c);
  for (const View* in : {&a, &a_scale, &b, &b_scales, &b_zeros, &offsets, &gather}) call.disjoint(c, *in);

  p.dtype = a.dtype;
  p.a = a.data;
  p.lda = a.stride_of(0);
  p.a_rows = a[0];
  p.a_scale = a_scale.as<const float>();
  p.a_scale_stride = a_scale ? a_scale.stride_of(0) : 0;
  p.offsets = offsets.as<const int64_t>();
  p.gather = gather.as<const int32_t>();
  p.c = c.data;
  p.ldc = c.stride_of(0);
  p.out_dtype = c.dtype;
  p.act = gated ? GroupedAct::silu_mul : GroupedAct::none;
  p.validate = call.validate();
  p.batch_invariant = call.batch_invariant();
  if (call.caps().backend == CUL_BACKEND_CPU) {
    const int64_t row_bytes = 4 * ceil_div(std::max<int64_t>(k, 1), 16) * 16;
    p.chunk = std::min(p.rows, std::max<int64_t>(kChunkBytes / row_bytes, 64));
    p.workspace = call.workspace(cpu::grouped_workspace_bytes(p));
    return p;
  }
  std::string reason;
  p.plan = plan_grouped_gemm(p, call.caps(), &reason);
  if (p.plan.row_tiles * p.plan.column_tiles > INT32_MAX)
    call.refuse(CUL_UNSUPPORTED, "c is %s, up to %lld tiles of %d rows; a launch takes at most 2^31 - 1", shape_text(c).c_str(),
                static_cast<long long>(p.plan.row_tiles * p.plan.column_tiles), p.plan.tile_tokens);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

std::string GroupedGemmParams::invalid_text(int64_t i) const {
  if (i >= experts())
    return format("gather[%lld] = %d; it must be -1 or one of the %lld rows of a", ll(i - experts()), gather[i - experts()], ll(a_rows));
  if (offsets[0] != 0) return format("offsets begins with %lld; it must begin with 0", ll(offsets[0]));
  return format("offsets[%lld] = %lld; it must lie between its predecessor %lld and the %lld rows of c", ll(i + 1), ll(offsets[i + 1]),
                ll(offsets[i]), ll(rows));
}

}  // namespace culebra

#include "ops/gemm/w4a8_gemm.h"

#include "backends/backend.h"
#include "ops/gemm/f8_rows.h"
#include "ops/gemm/packing/packed_weights.h"

namespace culebra {

W4A8GemmParams check_w4a8_gemm(const Call& call, const cul_w4a8_gemm_args& args) {
  const View a = call.required(args.a, "a"), a_scale = call.required(args.a_scale, "a_scale"), packed = call.required(args.packed, "packed"),
             scales = call.required(args.packed_scales, "packed_scales"), channel_scale = call.required(args.channel_scale, "channel_scale"),
             c = call.required(args.c, "c");
  call.one_of(args.epilogue, {CUL_EPILOGUE_NONE, CUL_EPILOGUE_SILU_MUL}, "epilogue");
  call.rank(a, 2, "[M,K]");
  call.rank(scales, 2, "[groups, n_padded]");
  call.rank(c, 2, "[M,N]");
  for (const View* operand : {&a, &scales}) call.dtype(*operand, {DType::f8e4m3});
  for (const View* scale : {&a_scale, &channel_scale}) call.dtype(*scale, {DType::f32});
  call.dtype(packed, {DType::u8});
  call.dtype(c, {DType::f16, DType::bf16});

  W4A8GemmParams p{};
  p.m = a[0];
  p.n = args.n;
  p.k = args.k;
  p.n_padded = scales[1];
  p.k_padded = scales[0] * kW4A8Group;
  if (p.n < 1 || p.k < 1) call.refuse(CUL_SHAPE, "the weights are N = %lld by K = %lld; both must be positive", ll(p.n), ll(p.k));
  if (a[1] != p.k)
    call.refuse(CUL_SHAPE, "a is %s but the weights are [%lld, %lld]; a's last dimension must be %lld", shape_text(a).c_str(), ll(p.n), ll(p.k),
                ll(p.k));
  const WeightKind kind(4, CUL_OPERAND_BYTE);
  const PackedTile tile = packed_tile(call.caps().backend, kind);
  const int64_t groups = (p.k + kW4A8Group - 1) / kW4A8Group, n_padded = (p.n + tile.n - 1) / tile.n * tile.n;
  if (scales[0] != groups || p.n_padded != n_padded)
    call.refuse(CUL_SHAPE, "packed_scales is %s but the weights are [%lld, %lld] in groups of 128, which is [%lld, %lld] here",
                shape_text(scales).c_str(), ll(p.n), ll(p.k), ll(groups), ll(n_padded));
  call.shape(packed, {packed_bytes(kind, p.n_padded, p.k_padded)}, "[packed_bytes]");
  call.compact(scales);
  call.shape(a_scale, {p.m}, "[M]");
  call.shape(channel_scale, {p.n}, "[N]");
  if (args.epilogue == CUL_EPILOGUE_SILU_MUL) {
    if (p.n % 2) call.refuse(CUL_SHAPE, "silu_mul halves N = %lld, which must be even", ll(p.n));
    call.shape(c, {p.m, p.n / 2}, "[M,N/2]");
  } else {
    call.shape(c, {p.m, p.n}, "[M,N]");
  }
  call.distinct(c);
  for (const View* in : {&a, &a_scale, &packed, &scales, &channel_scale}) call.disjoint(c, *in);

  p.a = a.as<const uint8_t>();
  p.lda = a.stride_of(0);
  p.a_scale = a_scale.as<const float>();
  p.packed = packed.as<const uint8_t>();
  p.scales = scales.as<const uint8_t>();
  p.channel_scale = channel_scale.as<const float>();
  p.c = c.data;
  p.ldc = c.stride_of(0);
  p.dtype = c.dtype;
  p.epilogue = args.epilogue;
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::f8_rows_workspace(p.m, p.k_padded).bytes);
    return p;
  }
  require_wgmma(call);
  std::string reason;
  p.plan = plan_w4a8_gemm(p, call.batch_invariant(), call.caps(), &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

}  // namespace culebra

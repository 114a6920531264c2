#include "ops/gemm/w4a16_gemm.h"

#include "backends/backend.h"
#include "ops/gemm/packing/packed_weights.h"
#include "ops/gemm/w4a16_gemm_cpu.h"

namespace culebra {

W4A16GemmParams check_w4a16_gemm(const Call& call, const cul_w4a16_gemm_args& args) {
  const auto ll = [](int64_t v) { return static_cast<long long>(v); };
  const View a = call.required(args.a, "a"), packed = call.required(args.packed, "packed"),
             scales = call.required(args.packed_scales, "packed_scales"),
             zeros = call.optional(args.packed_zeros, "packed_zeros"), perm = call.optional(args.perm, "perm"),
             bias = call.optional(args.bias, "bias"), c = call.required(args.c, "c");
  call.rank(a, 2, "[M,K]");
  call.rank(scales, 2, "[groups, n_padded]");
  call.rank(c, 2, "[M,N]");
  call.dtype(a, {DType::f16, DType::bf16});
  call.dtype(packed, {DType::u8});
  call.dtype(scales, {DType::f16, DType::bf16});
  call.same_dtype(c, a);
  call.one_of(args.epilogue, {CUL_EPILOGUE_NONE, CUL_EPILOGUE_SILU, CUL_EPILOGUE_SILU_MUL}, "epilogue");

  W4A16GemmParams p{};
  p.m = a[0];
  p.n = args.n;
  p.k = args.k;
  p.groups = scales[0];
  p.n_padded = scales[1];
  if (p.n < 1 || p.k < 1) call.refuse(CUL_SHAPE, "the weights are N = %lld by K = %lld; both must be positive", ll(p.n), ll(p.k));
  if (a[1] != p.k)
    call.refuse(CUL_SHAPE, "a is %s but the weights are [%lld, %lld]; a's last dimension must be %lld", shape_text(a).c_str(),
                ll(p.n), ll(p.k), ll(p.k));
  const PackedTile tile = packed_tile(call.caps().backend, 4);
  if (p.n_padded % tile.n || p.n_padded < p.n || p.n_padded - p.n >= tile.n)
    call.refuse(CUL_SHAPE, "packed_scales is %s but N = %lld is padded to %lld here", shape_text(scales).c_str(), ll(p.n),
                ll((p.n + tile.n - 1) / tile.n * tile.n));
  const bool one_group = p.groups == 1 && args.packed_group != 32 && args.packed_group != 64 && args.packed_group != 128;
  if (!one_group) call.one_of(args.packed_group, {32, 64, 128}, "packed_group (or all of k_padded)");
  p.group = args.packed_group;
  if (p.group < 1 || __builtin_mul_overflow(p.groups, p.group, &p.k_padded) || p.k_padded % tile.k || p.k_padded < p.k)
    call.refuse(CUL_SHAPE, "packed_scales is %s: %lld groups of %lld rows do not hold K = %lld in multiples of %lld",
                shape_text(scales).c_str(), ll(p.groups), ll(p.group), ll(p.k), ll(tile.k));
  call.shape(packed, {packed_bytes(4, p.n_padded, p.k_padded)}, "[packed_bytes]");
  call.compact(scales);
  if (zeros) {
    call.dtype(zeros, {DType::u8});
    call.shape(zeros, {p.groups, p.n_padded}, "[groups, n_padded]");
    call.compact(zeros);
  }
  if (perm) {
    call.dtype(perm, {DType::i32});
    call.shape(perm, {p.k_padded}, "[k_padded]");
  }
  if (bias) {
    call.same_dtype(bias, a);
    call.shape(bias, {p.n}, "[N]");
  }
  if (args.epilogue == CUL_EPILOGUE_SILU_MUL) {
    if (p.n % 2) call.refuse(CUL_SHAPE, "silu_mul halves N = %lld, which must be even", ll(p.n));
    call.shape(c, {p.m, p.n / 2}, "[M,N/2]");
  } else {
    call.shape(c, {p.m, p.n}, "[M,N]");
  }
  for (const View* in : {&a, &packed, &scales, &zeros, &perm, &bias}) call.disjoint(c, *in);

  p.a = a.data;
  p.lda = a.stride_of(0);
  p.packed = packed.as<const uint8_t>();
  p.scales = scales.data;
  p.zeros = zeros.as<const uint8_t>();
  p.perm = perm.as<const int32_t>();
  p.bias = bias.data;
  p.c = c.data;
  p.ldc = c.stride_of(0);
  p.dtype = a.dtype;
  p.scale_dtype = scales.dtype;
  p.epilogue = args.epilogue;
  p.batch_invariant = call.batch_invariant();
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::w4a16_gemm_workspace(p.m, p.k_padded, p.group).bytes);
    return p;
  }
  std::string reason;
  p.plan = plan_w4a16_gemm(p, call.caps(), &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

}  // namespace culebra

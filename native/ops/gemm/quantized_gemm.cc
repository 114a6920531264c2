#include "ops/gemm/quantized_gemm.h"

#include "backends/backend.h"
#include "ops/gemm/packing/packed_weights.h"
#include "ops/gemm/quantized_gemm_cpu.h"
#include "ops/gemm/tile/tile_plan.h"

namespace culebra {
namespace {

constexpr int64_t kScaleBlock = 128;  // columns and k of scaling block128

long long ll(int64_t v) { return v; }

// A call of any of the three products; absent members are null.
struct Tensors {
  const cul_tensor *a, *a_scale, *packed, *scales, *zeros, *perm, *bias, *c;
  int64_t n, k, packed_group;
  int32_t epilogue;
};

QuantizedGemmParams check(const Call& call, WeightKind kind, const Tensors& t) {
  const bool bytes = kind.operand == CUL_OPERAND_BYTE;
  const View a = call.required(t.a, "a"), a_scale = bytes ? call.required(t.a_scale, "a_scale") : View{},
             packed = call.required(t.packed, "packed"), scales = call.required(t.scales, "packed_scales"),
             zeros = call.optional(t.zeros, "packed_zeros"), perm = call.optional(t.perm, "perm"), bias = call.optional(t.bias, "bias"),
             c = call.required(t.c, "c");
  call.rank(a, 2, "[M,K]");
  call.rank(scales, 2, "[groups, scale_columns]");
  call.rank(c, 2, "[M,N]");
  if (bytes) {
    call.dtype(a, {DType::i8});
    call.dtype(a_scale, {DType::f32});
    call.dtype(c, {DType::f16, DType::bf16});
  } else {
    call.dtype(a, {DType::f16, DType::bf16});
    call.same_dtype(c, a);
  }
  if (kind.bits == 8) {
    call.dtype(packed, {DType::u8, DType::f8e4m3});
    call.dtype(scales, {DType::f16, DType::bf16, DType::f32});
  } else {
    call.dtype(packed, {DType::u8});
    call.dtype(scales, {DType::f16, DType::bf16});
  }
  call.one_of(t.epilogue, {CUL_EPILOGUE_NONE, CUL_EPILOGUE_SILU, CUL_EPILOGUE_SILU_MUL}, "epilogue");
  const bool blocks = scales.dtype == DType::f32;
  if (zeros && (blocks || packed.dtype == DType::f8e4m3))
    call.refuse(CUL_UNSUPPORTED, "packed_zeros is given, which %s do not have", blocks ? "weights in blocks of 128 x 128" : "f8e4m3 weights");
  if (perm && blocks) call.refuse(CUL_UNSUPPORTED, "perm is given, which weights in blocks of 128 x 128 do not have");

  QuantizedGemmParams p{};
  p.m = a[0];
  p.n = t.n;
  p.k = t.k;
  p.bits = kind.bits;
  p.groups = scales[0];
  p.group = t.packed_group;
  if (p.n < 1 || p.k < 1) call.refuse(CUL_SHAPE, "the weights are N = %lld by K = %lld; both must be positive", ll(p.n), ll(p.k));
  if (a[1] != p.k)
    call.refuse(CUL_SHAPE, "a is %s but the weights are [%lld, %lld]; a's last dimension must be %lld", shape_text(a).c_str(),
                ll(p.n), ll(p.k), ll(p.k));
  const PackedTile tile = packed_tile(call.caps().backend, kind);
  p.n_padded = (p.n + tile.n - 1) / tile.n * tile.n;
  const bool one_group = kind.bits != 6 && !blocks && p.groups == 1 && p.group >= p.k;
  if (kind.bits == 6 || blocks)
    call.one_of(p.group, {128}, blocks ? "packed_group (of blocks of 128 x 128)" : "packed_group (of 6-bit weights)");
  else if (!one_group && kind.sparsity == CUL_SPARSITY_2_4)
    call.one_of(p.group, {128}, "packed_group (of 2:4 weights, or all of k_padded)");
  else if (!one_group)
    call.one_of(p.group, {32, 64, 128}, "packed_group (or all of k_padded)");
  if (__builtin_mul_overflow(p.groups, p.group, &p.k_padded) || p.k_padded % tile.k || p.k_padded < p.k)
    call.refuse(CUL_SHAPE, "packed_scales is %s: %lld groups of %lld rows do not hold K = %lld in multiples of %lld",
                shape_text(scales).c_str(), ll(p.groups), ll(p.group), ll(p.k), ll(tile.k));
  call.shape(scales, {p.groups, blocks ? (p.n_padded + kScaleBlock - 1) / kScaleBlock : p.n_padded},
             blocks ? "[groups, ceil(n_padded/128)]" : "[groups, n_padded]");
  call.compact(scales);
  call.shape(packed, {packed_bytes(kind, p.n_padded, p.k_padded)}, "[packed_bytes]");
  if (bytes) call.shape(a_scale, {p.m}, "[M]");
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
    call.same_dtype(bias, c);
    call.shape(bias, {p.n}, "[N]");
  }
  if (t.epilogue == CUL_EPILOGUE_SILU_MUL) {
    if (p.n % 2) call.refuse(CUL_SHAPE, "silu_mul halves N = %lld, which must be even", ll(p.n));
    call.shape(c, {p.m, p.n / 2}, "[M,N/2]");
  } else {
    call.shape(c, {p.m, p.n}, "[M,N]");
  }
  call.distinct(c);
  for (const View* in : {&a, &a_scale, &packed, &scales, &zeros, &perm, &bias}) call.disjoint(c, *in);

  p.a = a.data;
  p.lda = a.stride_of(0);
  p.a_scale = a_scale.as<const float>();
  p.packed = packed.as<const uint8_t>();
  p.scales = scales.data;
  p.zeros = zeros.as<const uint8_t>();
  p.perm = perm.as<const int32_t>();
  p.bias = bias.data;
  p.c = c.data;
  p.ldc = c.stride_of(0);
  p.floats = packed.dtype == DType::f8e4m3;
  p.dtype = a.dtype;
  p.out_dtype = c.dtype;
  p.scale_dtype = scales.dtype;
  p.epilogue = t.epilogue;
  p.batch_invariant = call.batch_invariant();
  if (call.caps().backend == CUL_BACKEND_CPU) {
    p.workspace = call.workspace(cpu::quantized_gemm_workspace(p).bytes);
    return p;
  }
  std::string reason;
  p.plan = plan_quantized_gemm(p, call.caps().multiprocessors, &reason);
  if (call.plan_only()) call.explain(reason);
  p.workspace = call.workspace(p.plan.workspace_bytes);
  return p;
}

}  // namespace

QuantizedGemmParams check_w8a16_gemm(const Call& call, const cul_w8a16_gemm_args& x) {
  return check(call, {8}, {x.a, nullptr, x.packed, x.packed_scales, x.packed_zeros, x.perm, x.bias, x.c, x.n, x.k, x.packed_group, x.epilogue});
}
QuantizedGemmParams check_w6a16_gemm(const Call& call, const cul_w6a16_gemm_args& x) {
  return check(call, {6}, {x.a, nullptr, x.packed, x.packed_scales, nullptr, nullptr, x.bias, x.c, x.n, x.k, x.packed_group, x.epilogue});
}
QuantizedGemmParams check_w4a16_sparse24_gemm(const Call& call, const cul_w4a16_sparse24_gemm_args& x) {
  return check(call, {4, CUL_OPERAND_HALF, CUL_SPARSITY_2_4},
               {x.a, nullptr, x.packed, x.packed_scales, nullptr, nullptr, x.bias, x.c, x.n, x.k, x.packed_group, x.epilogue});
}
QuantizedGemmParams check_w6a8_gemm(const Call& call, const cul_w6a8_gemm_args& x) {
  return check(call, {6, CUL_OPERAND_BYTE},
               {x.a, x.a_scale, x.packed, x.packed_scales, nullptr, nullptr, x.bias, x.c, x.n, x.k, 128, x.epilogue});
}

QuantizedGemmPlan plan_quantized_gemm(const QuantizedGemmParams& p, int multiprocessors, std::string* reason) {
  using namespace tile_plan;
  static constexpr TileChoice kTiles[] = {choice<ByteTile8>, choice<ByteTile32>, choice<ByteTile128>};
  const TileChoice& tile = p.batch_invariant ? kTiles[2] : smallest_holding(kTiles, p.m);
  const int64_t slice_rows = kSliceRowBytes / static_cast<int64_t>(size_of(p.dtype)), slices = p.k_padded / slice_rows;
  const int64_t blocks = ceil_div(p.m, tile.tokens) * ceil_div(p.n_padded, 2 * kColumnBlock);
  const Split split = p.batch_invariant ? Split{1, static_cast<int32_t>(slices)}
                                        : split_k(blocks, int64_t{multiprocessors} * tile.blocks_per_sm, slices, tile.k_warps);
  const bool paired = p.epilogue != CUL_EPILOGUE_SILU_MUL || p.n % (2 * kColumnBlock) == 0;

  QuantizedGemmPlan plan;
  plan.tile_tokens = tile.tokens;
  plan.splits = split.splits;
  plan.slices_per_split = split.slices_per_split;
  plan.gather = p.perm != nullptr;
  plan.fused = split.splits == 1 && paired;
  if (p.m == 0) return plan;
  plan.partials_offset = plan.gather ? align256(p.m * p.k_padded * 2) : 0;
  plan.workspace_bytes = plan.partials_offset + (plan.fused ? 0 : align256(p.m * p.n_padded * 4 * plan.splits));
  *reason = format("%d x 128 tiles%s: %lld blocks for %d SMs; ", plan.tile_tokens,
                   p.batch_invariant ? " (one tile for every M: batch invariant)" : "", ll(blocks), multiprocessors);
  *reason += plan.splits > 1 ? format("k in %d splits of %lld rows to fill them", plan.splits, ll(plan.slices_per_split * slice_rows))
                             : std::string("k in one piece");
  if (!plan.fused) *reason += paired ? "; a second kernel adds the splits and finishes c"
                                     : "; a second kernel finishes c: the halves of N for silu_mul are not whole blocks of 64 columns";
  if (plan.gather) *reason += "; a's columns are permuted first (act-order)";
  return plan;
}

}  // namespace culebra

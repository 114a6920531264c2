#include "ops/gemm/packed_product.h"

#include "ops/gemm/packing/packed_weights.h"

namespace culebra {
namespace {

constexpr int64_t kScaleBlock = 128;  // columns and k of scaling block128

}  // namespace

PackedProduct check_packed_product(const Call& call, WeightKind kind, const PackedProductTensors& t) {
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

  PackedProduct p{};
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
  return p;
}

}  // namespace culebra

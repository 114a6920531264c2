#include "ops/sparse_attention/nsa_compress.h"

#include "ops/glue/rows.h"

namespace culebra {
namespace {

}  // namespace

void check_compression(const Call& call, int32_t l, int32_t d) {
  at_least(call, l, 1, "l");
  at_least(call, d, 1, "d");
  if (l % d) call.refuse(CUL_RANGE, "d is %d and l is %d; d must divide l", d, l);
}

NsaCompressParams check_nsa_compress(const Call& call, const cul_nsa_compress_args& args) {
  const View x = call.required(args.x, "x"), cu_seqlens = call.required(args.cu_seqlens, "cu_seqlens");
  const View w = call.optional(args.w, "w"), pe = call.optional(args.pe, "pe");
  const View y = call.required(args.y, "y"), cu_out = call.required(args.cu_out, "cu_out");
  call.one_of(args.dialect, {CUL_NSA_MEAN, CUL_NSA_LINEAR}, "dialect");
  const bool linear = args.dialect == CUL_NSA_LINEAR;
  if (linear && !w) call.refuse(CUL_NULL_POINTER, "w is required: the dialect is linear");
  if (!linear && w) call.refuse(CUL_UNSUPPORTED, "w is given, but the dialect is mean, which takes no weights");
  call.rank(x, 3, "[T,Hkv,D]");
  call.dtype(x, {DType::f16, DType::bf16, DType::f32});
  for (const View* t : {&w, &pe, &y})
    if (*t) call.same_dtype(*t, x);
  call.rank(cu_seqlens, 1, "[B+1]");
  call.dtype(cu_seqlens, {DType::i32});
  call.dtype(cu_out, {DType::i32});
  if (cu_seqlens[0] < 1) call.refuse(CUL_SHAPE, "cu_seqlens is []; it must be [B+1], beginning with 0");
  call.same_shape(cu_out, cu_seqlens);
  check_compression(call, args.l, args.d);
  const int64_t heads = x[1], dim = x[2];
  if (w) call.shape(w, {heads, args.l, dim, dim}, "[Hkv,l,D,D], Hkv and D as x's");
  if (pe) call.shape(pe, {heads, args.l, dim}, "[Hkv,l,D], Hkv and D as x's");
  call.shape(y, {-1, heads, dim}, "[Tc,Hkv,D], Hkv and D as x's");
  check_kernel_limits(call, dim, dim);
  check_outputs(call, {&y, &cu_out}, {&x, &cu_seqlens, &w, &pe});

  NsaCompressParams p;
  p.dtype = x.dtype;
  p.sequences = cu_seqlens[0] - 1;
  p.heads = heads;
  p.dim = dim;
  p.rows = x[0];
  p.out_rows = y[0];
  p.x = token_rows(x);
  p.y = token_rows(y);
  if (w) {
    p.w = {w.data, w.stride_of(1), w.stride_of(0)};
    p.w_in = w.stride_of(2);
  }
  if (pe) p.pe = {pe.data, pe.stride_of(1), pe.stride_of(0)};
  p.cu_seqlens = cu_seqlens.as<const int32_t>();
  p.cu_out = cu_out.as<int32_t>();
  p.l = args.l;
  p.d = args.d;
  p.linear = linear;
  p.aligned = glue::aligned_rows({&x, &w, &pe, &y}) && dim % 8 == 0;
  p.validate = call.validate();
  return p;
}

std::string NsaCompressParams::invalid_text(int64_t i) const {
  if (i < sequences) return starts_text("cu_seqlens", cu_seqlens, i, rows);
  return format("the sequences give %lld rows, but y has %lld", ll(given_rows()), ll(out_rows));
}

}  // namespace culebra

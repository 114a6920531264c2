#include "ops/kv_cache/bitmap_kv_compress.h"

namespace culebra {

BitmapCompressParams check_bitmap_kv_compress(const Call& call, const cul_bitmap_kv_compress_args& args) {
  const View x = call.required(args.x, "x"), values = call.required(args.values, "values"),
             bits = call.required(args.bits, "bits");
  call.rank(x, 3, "[T,Hkv,D]");
  call.dtype(x, {DType::f16, DType::bf16, DType::f32});
  call.same_dtype(values, x);
  call.dtype(bits, {DType::i64});
  if (x[2] < 64 || x[2] % 64)
    call.refuse(CUL_SHAPE, "x is %s; its last dimension must be a multiple of 64", shape_text(x).c_str());
  if (args.keep < 8 || args.keep % 8 || args.keep > x[2])
    call.refuse(CUL_RANGE, "keep is %d; it must be a multiple of 8 from 8 to D = %lld", args.keep, ll(x[2]));
  call.shape(values, {x[0], x[1], args.keep}, "[T,Hkv,keep]");
  call.shape(bits, {x[0], x[1], x[2] / 64}, "[T,Hkv,D/64]");
  for (const View* out : {&values, &bits}) {
    call.distinct(*out);
    call.disjoint(*out, x);
  }
  call.disjoint(values, bits);
  return {x.dtype, x[0], x[1], x[2], args.keep, head_rows(x), head_rows(values), head_rows(bits)};
}

}  // namespace culebra

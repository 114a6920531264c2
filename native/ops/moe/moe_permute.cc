#include "ops/moe/moe_permute.h"

#include "ops/glue/rows.h"

namespace culebra {

MoePermuteParams check_moe_permute(const Call& call, const cul_moe_permute_args& args) {
  const View x = call.required(args.x, "x"), inverse = call.required(args.inverse, "inverse"), rows = call.required(args.rows, "rows");
  call.rank(x, 2, "[T,D]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16, DType::f8e4m3});
  call.dtype(inverse, {DType::i32});
  call.same_dtype(rows, x);
  if (args.k < 1) call.refuse(CUL_RANGE, "k is %d; it must be 1 or more", args.k);
  const int64_t slots = x[0] * args.k;
  if (slots > INT32_MAX)
    call.refuse(CUL_UNSUPPORTED, "x is %s and k is %d: %lld slots; at most 2^31 - 1", shape_text(x).c_str(), args.k,
                static_cast<long long>(slots));
  call.shape(inverse, {slots}, "[T k]");
  call.shape(rows, {slots, x[1]}, "[T k, D]");
  call.distinct(rows);
  call.disjoint(rows, x);
  call.disjoint(rows, inverse);

  MoePermuteParams p;
  p.element_bytes = static_cast<int>(size_of(x.dtype));
  p.aligned = glue::aligned_rows({&x, &rows}) && x[1] * p.element_bytes % 16 == 0;
  p.x = x.data;
  p.x_stride = x.stride_of(0);
  p.inverse = inverse.as<const int32_t>();
  p.rows = rows.data;
  p.rows_stride = rows.stride_of(0);
  p.row_count = slots;
  p.tokens = x[0];
  p.width = x[1];
  p.k = args.k;
  p.validate = call.validate();
  return p;
}

std::string MoeInverse::invalid_text(int64_t slot) const {
  return format("inverse[%lld] = %d; it must be -1 or one of the %lld rows", static_cast<long long>(slot), inverse[slot],
                static_cast<long long>(rows));
}

}  // namespace culebra

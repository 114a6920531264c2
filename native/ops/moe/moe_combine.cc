#include "ops/moe/moe_combine.h"

#include "ops/glue/rows.h"

namespace culebra {

MoeCombineParams check_moe_combine(const Call& call, const cul_moe_combine_args& args) {
  const View rows = call.required(args.rows, "rows"), inverse = call.required(args.inverse, "inverse"),
             weights = call.required(args.weights, "weights"), y = call.required(args.y, "y");
  call.rank(rows, 2, args.dispatched ? "[N,D]" : "[T k, D]");
  call.rank(weights, 2, "[T,k]");
  call.dtype(rows, {DType::f32, DType::f16, DType::bf16});
  call.dtype(inverse, {DType::i32});
  call.dtype(weights, {DType::f32});
  call.same_dtype(y, rows);
  if (args.k < 1) call.refuse(CUL_RANGE, "k is %d; it must be 1 or more", args.k);
  call.shape(weights, {-1, args.k}, "[T,k]");
  const int64_t tokens = weights[0], slots = tokens * args.k;
  if (slots > INT32_MAX)
    call.refuse(CUL_UNSUPPORTED, "weights is %s: %lld slots; at most 2^31 - 1", shape_text(weights).c_str(),
                static_cast<long long>(slots));
  call.flag(args.dispatched, "dispatched");
  if (args.dispatched) {
    if (rows[0] > INT32_MAX) call.refuse(CUL_UNSUPPORTED, "rows is %s; at most 2^31 - 1 rows", shape_text(rows).c_str());
  } else {
    call.shape(rows, {slots, -1}, "[T k, D]");
  }
  call.shape(inverse, {slots}, "[T k]");
  call.shape(y, {tokens, rows[1]}, "[T,D]");
  call.distinct(y);
  for (const View* in : {&rows, &inverse, &weights}) call.disjoint(y, *in);

  MoeCombineParams p;
  p.dtype = rows.dtype;
  p.aligned = glue::aligned_rows({&rows, &y});
  p.rows = rows.data;
  p.rows_stride = rows.stride_of(0);
  p.row_count = rows[0];
  p.nan_without_room = args.dispatched != 0;
  p.inverse = inverse.as<const int32_t>();
  p.weights = weights.as<const float>();
  p.weights_stride = weights.stride_of(0);
  p.y = y.data;
  p.y_stride = y.stride_of(0);
  p.tokens = tokens;
  p.width = rows[1];
  p.k = args.k;
  p.validate = call.validate();
  return p;
}

}  // namespace culebra

#include "ops/glue/softmax.h"

namespace culebra {

SoftmaxParams check_softmax(const Call& call, const cul_softmax_args& args) {
  const View x = call.required(args.x, "x"), y = call.required(args.y, "y");
  call.rank(x, 2, "[T,N]");
  call.rank(y, 2, "[T,N]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  call.same_dtype(y, x);
  call.same_shape(y, x);
  call.distinct(y);
  call.disjoint(y, x);
  return {x.dtype, x[0], x[1], glue::aligned_rows({&x, &y}), glue::rows_of(x), glue::rows_of(y)};
}

ArgmaxParams check_argmax(const Call& call, const cul_argmax_args& args) {
  const View x = call.required(args.x, "x"), ids = call.required(args.ids, "ids");
  call.rank(x, 2, "[T,N]");
  call.rank(ids, 1, "[T]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  call.dtype(ids, {DType::i32});
  if (x[1] < 1 || x[1] > INT32_MAX)
    call.refuse(CUL_SHAPE, "x is %s; its last dimension must be 1 to 2^31 - 1", shape_text(x).c_str());
  call.shape(ids, {x[0]}, "[T]");
  call.compact(ids);
  call.disjoint(ids, x);
  return {x.dtype, x[0], x[1], glue::aligned_rows({&x}), glue::rows_of(x), ids.as<int32_t>()};
}

}  // namespace culebra

#include "ops/glue/rope.h"

namespace culebra {

RopeParams check_rope(const Call& call, const cul_rope_args& args) {
  const View x = call.required(args.x, "x"), cos = call.required(args.cos, "cos"), sin = call.required(args.sin, "sin"),
             positions = call.required(args.positions, "positions"), y = call.required(args.y, "y");
  call.rank(x, 3, "[T,H,D]");
  call.rank(cos, 2, "[P,R/2]");
  call.rank(sin, 2, "[P,R/2]");
  call.rank(positions, 1, "[T]");
  call.rank(y, 3, "[T,H,D]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  call.same_dtype(y, x);
  call.dtype(cos, {DType::f32});
  call.dtype(sin, {DType::f32});
  call.dtype(positions, {DType::i64});
  call.same_shape(y, x);
  call.same_shape(sin, cos);
  call.shape(positions, {x[0]}, "[T]");
  if (2 * cos[1] > x[2])
    call.refuse(CUL_SHAPE, "cos is %s, so %lld channels turn, but x is %s: a head has only %lld", shape_text(cos).c_str(),
                static_cast<long long>(2 * cos[1]), shape_text(x).c_str(), static_cast<long long>(x[2]));
  call.flag(args.interleaved, "interleaved");
  call.compact(positions);
  call.distinct(y);
  call.disjoint(y, x, true);
  for (const View* in : {&cos, &sin, &positions}) call.disjoint(y, *in);
  const int64_t turned = 2 * cos[1], pack = glue::pack_of(x.dtype);
  const bool aligned = glue::aligned_rows({&x, &y}) && (args.interleaved ? turned : turned / 2) % pack == 0;
  return {x.dtype, args.interleaved == 1, call.validate(), aligned, x[0], x[1], x[2], turned, cos[0], glue::rows_of(x),
          glue::rows_of(y), x.stride_of(1), y.stride_of(1), glue::rows_of(cos), glue::rows_of(sin),
          positions.as<const int64_t>()};
}

std::string RopeParams::invalid_text(int64_t t) const {
  return format("positions[%lld] is %lld; the tables hold positions 0 to %lld (and -1 is padding)", static_cast<long long>(t),
                static_cast<long long>(positions[t]), static_cast<long long>(positions_in_table - 1));
}

}  // namespace culebra

#include "ops/glue/elementwise.h"

#include <cstdlib>

namespace culebra {
namespace {

template <int N>
Walk<N> plan_walk(const std::array<const View*, N>& operands) {
  const View& y = *operands[0];
  struct Dimension {
    int64_t extent;
    int64_t stride[N];
  };
  Dimension dims[Walk<N>::kMaxRank];
  int rank = 0;
  for (int i = 0; i < y.rank; ++i) {
    if (y[i] == 1) continue;
    Dimension d{y[i], {}};
    for (int n = 0; n < N; ++n) d.stride[n] = operands[static_cast<size_t>(n)]->stride_of(i);
    int at = rank++;  // by descending stride of the output
    for (; at > 0 && std::llabs(dims[at - 1].stride[0]) < std::llabs(d.stride[0]); --at) dims[at] = dims[at - 1];
    dims[at] = d;
  }
  int merged = 0;
  for (int i = 1; i < rank; ++i) {
    bool joins = true;
    for (int n = 0; n < N; ++n) joins = joins && dims[merged].stride[n] == dims[i].extent * dims[i].stride[n];
    if (joins) {
      dims[i].extent *= dims[merged].extent;
      dims[merged] = dims[i];
    } else {
      dims[++merged] = dims[i];
    }
  }
  Walk<N> walk;
  for (int n = 0; n < N; ++n) walk.data[n] = operands[static_cast<size_t>(n)]->template as<char>();
  if (rank > 0) {
    walk.outer = merged;
    walk.columns = dims[merged].extent;
    for (int n = 0; n < N; ++n) walk.inner_stride[n] = dims[merged].stride[n];
    for (int i = 0; i < merged; ++i) {
      walk.rows *= dims[i].extent;
      walk.extent[i] = dims[i].extent;
      for (int n = 0; n < N; ++n) walk.stride[n][i] = dims[i].stride[n];
    }
  }
  if (y.elements() == 0) walk.rows = 0;
  return walk;
}

void check_shapes(const Call& call, const View& y, std::initializer_list<const View*> inputs) {
  for (const View* in : inputs) {
    if (in->rank > Walk<2>::kMaxRank)
      call.refuse(CUL_SHAPE, "%s is %s; at most rank %d", in->name, shape_text(*in).c_str(), Walk<2>::kMaxRank);
    call.same_shape(*in, y);
  }
}

void check_output(const Call& call, const View& y, std::initializer_list<const View*> inputs) {
  call.distinct(y);
  for (const View* in : inputs) call.disjoint(y, *in);
}

}  // namespace

AddParams check_add(const Call& call, const cul_add_args& args) {
  const View a = call.strided(args.a, "a"), b = call.strided(args.b, "b"), y = call.strided(args.y, "y");
  call.dtype(a, {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i64});
  call.same_dtype(b, a);
  call.same_dtype(y, a);
  check_shapes(call, y, {&a, &b});
  check_output(call, y, {&a, &b});
  return {a.dtype, plan_walk<3>({&y, &a, &b})};
}

ScaleParams check_scale(const Call& call, const cul_scale_args& args) {
  const View x = call.strided(args.x, "x"), y = call.strided(args.y, "y");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16});
  call.same_dtype(y, x);
  check_shapes(call, y, {&x});
  check_output(call, y, {&x});
  return {x.dtype, plan_walk<2>({&y, &x}), args.factor};
}

CastParams check_cast(const Call& call, const cul_cast_args& args) {
  const View x = call.strided(args.x, "x"), y = call.strided(args.y, "y");
  check_shapes(call, y, {&x});
  check_output(call, y, {&x});
  return {x.dtype, y.dtype, plan_walk<2>({&y, &x})};
}

CopyStridedParams check_copy_strided(const Call& call, const cul_copy_strided_args& args) {
  const View x = call.strided(args.x, "x"), y = call.strided(args.y, "y");
  call.same_dtype(y, x);
  check_shapes(call, y, {&x});
  check_output(call, y, {&x});
  return {static_cast<int>(size_of(x.dtype)), plan_walk<2>({&y, &x})};
}

}  // namespace culebra

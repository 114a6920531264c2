#include "ops/sparse_attention/neighborhood_attention.h"

#include <cmath>

#include "ops/glue/rows.h"
#include "ops/sparse_attention/packed.h"

namespace culebra {
namespace {

// [B,*S,H,..] with `axes` axes as three.
NeighborhoodParams::Rows rows_of(const View& v, int axes) {
  NeighborhoodParams::Rows r;
  if (!v) return r;
  r.data = v.data;
  r.batch = v.stride_of(0);
  for (int a = 0; a < axes; ++a) r.axis[kMaxAxes - axes + a] = v.stride_of(1 + a);
  r.head = v.stride_of(1 + axes);
  return r;
}

void check_entries(const Call& call, int32_t entries, int axes, bool may_be_absent, const char* name) {
  if (entries == axes || (may_be_absent && entries == 0)) return;
  call.refuse(CUL_RANGE, "%s has %d entries; q has %d axes between batch and heads", name, entries, axes);
}

// The axes' attributes, one at a time; `lengths` are q's.
void check_axes(const Call& call, const cul_neighborhood_attention_args& args, const View& q, int axes,
                NeighborhoodParams& p) {
  check_entries(call, args.window_entries, axes, false, "window");
  check_entries(call, args.stride_entries, axes, true, "stride");
  check_entries(call, args.dilation_entries, axes, true, "dilation");
  check_entries(call, args.causal_entries, axes, true, "causal");
  for (int a = 0; a < axes; ++a) {
    NeighborhoodAxis& axis = p.axes[kMaxAxes - axes + a];
    const int64_t length = q[1 + a];
    if (length > INT32_MAX)
      call.refuse(CUL_UNSUPPORTED, "q is %s; an axis has at most 2^31 - 1 tokens", shape_text(q).c_str());
    axis.length = static_cast<int32_t>(length);
    axis.window = args.window[a];
    axis.stride = args.stride_entries ? args.stride[a] : 1;
    axis.dilation = args.dilation_entries ? args.dilation[a] : 1;
    const int32_t causal = args.causal_entries ? args.causal[a] : 0;
    call.flag(causal, "causal");
    axis.causal = causal;
    if (axis.window < 1) call.refuse(CUL_RANGE, "window[%d] is %d; it must be 1 or more", a, axis.window);
    if (axis.stride < 1 || axis.stride > axis.window)
      call.refuse(CUL_RANGE, "stride[%d] is %d; it must be 1 to the window, %d", a, axis.stride, axis.window);
    if (axis.dilation < 1) call.refuse(CUL_RANGE, "dilation[%d] is %d; it must be 1 or more", a, axis.dilation);
    if (q.elements() > 0 && int64_t{axis.window} * axis.dilation > length)
      call.refuse(CUL_RANGE, "window[%d] %d times dilation[%d] %d is %lld, but q's axis %d has %lld tokens", a,
                  axis.window, a, axis.dilation, ll(int64_t{axis.window} * axis.dilation), 1 + a, ll(length));
  }
}

}  // namespace

bool NeighborhoodParams::empty() const {
  return batch == 0 || axes[0].length == 0 || axes[1].length == 0 || axes[2].length == 0;
}

NeighborhoodParams check_neighborhood_attention(const Call& call, const cul_neighborhood_attention_args& args) {
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v");
  const View extra_k = call.optional(args.extra_k, "extra_k"), extra_v = call.optional(args.extra_v, "extra_v");
  const View o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse");
  if (extra_k.present != extra_v.present)
    call.refuse(CUL_NULL_POINTER, "extra_k and extra_v come together, but %s is absent", extra_k ? "extra_v" : "extra_k");
  if (q.rank < 4 || q.rank > 3 + kMaxAxes)
    call.refuse(CUL_SHAPE, "q is %s; it must be [B,*S,Hq,D] with 1 to 3 axes between B and Hq", shape_text(q).c_str());
  const int axes = q.rank - 3;
  const int64_t B = q[0], Hq = q[axes + 1], D = q[axes + 2];
  call.dtype(q, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&k, &v, &extra_k, &extra_v, &o})
    if (*x) call.same_dtype(*x, q);
  if (lse) call.dtype(lse, {DType::f32});

  call.rank(k, q.rank, "[B,*S,Hkv,D], as many dimensions as q");
  const int64_t Hkv = k[axes + 1];
  for (int i = 0; i < q.rank; ++i)
    if (i != axes + 1 && k[i] != q[i])
      call.refuse(CUL_SHAPE, "k is %s but q is %s; dimension %d must be equal", shape_text(k).c_str(),
                  shape_text(q).c_str(), i);
  call.same_shape(v, k);
  if (Hq < 1 || Hkv < 1 || Hq % Hkv)
    call.refuse(CUL_SHAPE, "q has %lld heads but k has %lld; Hq must be a multiple of Hkv", ll(Hq), ll(Hkv));
  if (D < 1) call.refuse(CUL_SHAPE, "q is %s; heads must not be empty", shape_text(q).c_str());
  if (extra_k) {
    call.shape(extra_k, {B, -1, Hkv, D}, "[B,E,Hkv,D], B as q's, Hkv and D as k's");
    call.same_shape(extra_v, extra_k);
  }
  call.same_shape(o, q);
  if (lse) {
    call.rank(lse, q.rank - 1, "[B,*S,Hq]");
    for (int i = 0; i < lse.rank; ++i)
      if (lse[i] != q[i])
        call.refuse(CUL_SHAPE, "lse is %s but q is %s; it must be [B,*S,Hq]", shape_text(lse).c_str(),
                    shape_text(q).c_str());
  }
  if (!std::isfinite(args.scale)) call.refuse(CUL_RANGE, "scale is %g; it must be finite", args.scale);

  NeighborhoodParams p;
  check_axes(call, args, q, axes, p);
  check_kernel_limits(call, D, D);
  check_outputs(call, {&o, &lse}, {&q, &k, &v, &extra_k, &extra_v});
  p.dtype = q.dtype;
  p.batch = B;
  p.query_heads = Hq;
  p.kv_heads = Hkv;
  p.dim = D;
  p.extra = extra_k ? extra_k[1] : 0;
  p.q = rows_of(q, axes);
  p.k = rows_of(k, axes);
  p.v = rows_of(v, axes);
  p.extra_k = rows_of(extra_k, 1);
  p.extra_v = rows_of(extra_v, 1);
  p.o = rows_of(o, axes);
  p.lse = rows_of(lse, axes);
  p.aligned = glue::aligned_rows({&q, &k, &v, &extra_k, &extra_v, &o}) && D % 8 == 0;
  p.scale = args.scale == 0 ? 1 / std::sqrt(static_cast<float>(D)) : args.scale;
  return p;
}

}  // namespace culebra

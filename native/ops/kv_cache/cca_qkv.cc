#include "ops/kv_cache/cca_qkv.h"

namespace culebra {

CcaParams check_cca_qkv(const Call& call, const cul_cca_qkv_args& args) {
  const View x_q = call.required(args.x_q, "x_q"), x_k = call.required(args.x_k, "x_k"),
             x_v1 = call.required(args.x_v1, "x_v1"), x_v2 = call.required(args.x_v2, "x_v2");
  const View conv1_w = call.required(args.conv1_w, "conv1_w"), conv1_b = call.optional(args.conv1_b, "conv1_b"),
             conv2_w = call.required(args.conv2_w, "conv2_w"), conv2_b = call.optional(args.conv2_b, "conv2_b");
  const View temp = call.required(args.temp, "temp"), cos = call.optional(args.cos, "cos"),
             sin = call.optional(args.sin, "sin");
  const View conv_state = call.optional(args.conv_state, "conv_state"),
             v_state = call.optional(args.v_state, "v_state");
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v");
  const View new_conv_state = call.optional(args.new_conv_state, "new_conv_state"),
             new_v_state = call.optional(args.new_v_state, "new_v_state");
  const auto together = [&](const View& a, const View& b) {
    if (a.present != b.present)
      call.refuse(CUL_NULL_POINTER, "%s and %s come together, but %s is absent", a.name, b.name, a ? b.name : a.name);
  };
  together(cos, sin);
  together(conv_state, v_state);
  together(new_conv_state, new_v_state);
  call.rank(x_q, 3, "[B,T,Hq*D]");
  call.rank(x_k, 3, "[B,T,Hkv*D]");
  call.rank(q, 4, "[B,T,Hq,D]");
  call.dtype(x_q, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&x_k, &x_v1, &x_v2, &conv1_w, &conv1_b, &conv2_w, &conv2_b, &conv_state, &v_state, &q, &k, &v,
                        &new_conv_state, &new_v_state})
    if (*x) call.same_dtype(*x, x_q);
  call.dtype(temp, {DType::f32});
  for (const View* x : {&cos, &sin})
    if (*x) call.dtype(*x, {DType::f32});

  // Head counts and D come from conv2_w [C,D,2], x_q and x_k.
  call.rank(conv2_w, 3, "[C,D,2]");
  const int64_t B = x_q[0], T = x_q[1], D = conv2_w[1], C = x_q[2] + x_k[2];
  if (D < 1 || x_q[2] % D || x_k[2] % D || x_k[2] == 0 || x_q[2] == 0 || x_q[2] % x_k[2])
    call.refuse(CUL_SHAPE,
                "x_q is %s, x_k is %s and conv2_w is %s = [C,D,2]; their last dimensions must be Hq*D and Hkv*D, Hq a "
                "multiple of Hkv",
                shape_text(x_q).c_str(), shape_text(x_k).c_str(), shape_text(conv2_w).c_str());
  const int64_t Hq = x_q[2] / D, Hkv = x_k[2] / D;
  if (Hkv * D % 2)
    call.refuse(CUL_SHAPE, "x_k is %s; half of its last dimension goes to each of x_v1 and x_v2, so it must be even",
                shape_text(x_k).c_str());
  call.shape(x_k, {B, T, -1}, "[B,T,Hkv*D]");
  for (const View* x : {&x_v1, &x_v2}) call.shape(*x, {B, T, Hkv * D / 2}, "[B,T,Hkv*D/2]");
  call.shape(conv1_w, {C, 2}, "[C,2]");
  call.shape(conv2_w, {C, D, 2}, "[C,D,2]");
  for (const View* x : {&conv1_b, &conv2_b})
    if (*x) call.shape(*x, {C}, "[C]");
  call.shape(temp, {Hkv}, "[Hkv]");
  if (cos) {
    call.shape(cos, {B, T, -1}, "[B,T,R/2]");
    call.same_shape(sin, cos);
    if (2 * cos[2] > D)
      call.refuse(CUL_SHAPE, "cos is %s and turns %lld channels, but a head has %lld", shape_text(cos).c_str(),
                  ll(2 * cos[2]), ll(D));
  }
  for (const View* x : {&conv_state, &new_conv_state})
    if (*x) call.shape(*x, {B, C, 2}, "[B,C,2]");
  for (const View* x : {&v_state, &new_v_state})
    if (*x) call.shape(*x, {B, Hkv * D / 2}, "[B,Hkv*D/2]");
  call.shape(q, {B, T, Hq, D}, "[B,T,Hq,D]");
  for (const View* x : {&k, &v}) call.shape(*x, {B, T, Hkv, D}, "[B,T,Hkv,D]");
  const View* outs[] = {&q, &k, &v, &new_conv_state, &new_v_state};
  for (const View* out : outs) {
    if (!*out) continue;
    call.distinct(*out);
    for (const View* in : {&x_q, &x_k, &x_v1, &x_v2, &conv1_w, &conv1_b, &conv2_w, &conv2_b, &temp, &cos, &sin})
      call.disjoint(*out, *in);
    call.disjoint(*out, conv_state, out == &new_conv_state);
    call.disjoint(*out, v_state, out == &new_v_state);
    for (const View* other : outs) {
      if (other == out) break;
      call.disjoint(*out, *other);
    }
  }

  const auto rows = [](const View& x, int64_t head) {
    if (!x) return HeadRows{};
    return HeadRows{x.data, x.stride_of(0), x.rank > 2 ? x.stride_of(1) : 0, head};
  };
  CcaParams p;
  p.dtype = x_q.dtype;
  p.batch = B;
  p.tokens = T;
  p.query_heads = Hq;
  p.kv_heads = Hkv;
  p.dim = D;
  p.rotary_pairs = cos ? cos[2] : 0;
  p.x_q = rows(x_q, D);
  p.x_k = rows(x_k, D);
  p.x_v1 = rows(x_v1, 0);
  p.x_v2 = rows(x_v2, 0);
  p.conv1_w = {conv1_w.data, 0, conv1_w.stride_of(0), 0};
  p.conv2_w = {conv2_w.data, 0, conv2_w.stride_of(0), conv2_w.stride_of(1)};
  p.cos = rows(cos, 0);
  p.sin = rows(sin, 0);
  p.conv_state = rows(conv_state, 0);
  p.v_state = rows(v_state, 0);
  p.new_conv_state = rows(new_conv_state, 0);
  p.new_v_state = rows(new_v_state, 0);
  p.q = head_rows(q);
  p.k = head_rows(k);
  p.v = head_rows(v);
  p.conv1_b = conv1_b.data;
  p.conv2_b = conv2_b.data;
  p.temp = temp.as<const float>();
  return p;
}

}  // namespace culebra

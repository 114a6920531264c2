#include "ops/sparse_attention/packed.h"

#include <cmath>

#include "backends/backend.h"
#include "ops/glue/rows.h"

namespace culebra {

TokenRows token_rows(const View& v) {
  if (!v) return {};
  return {v.data, v.stride_of(0), v.rank == 3 ? v.stride_of(1) : 1};
}

void at_least(const Call& call, int64_t value, int64_t least, const char* name) {
  if (value < least)
    call.refuse(CUL_RANGE, "%s is %lld; it must be %lld or more", name, static_cast<long long>(value),
                static_cast<long long>(least));
}

void check_kernel_limits(const Call& call, int64_t dim, int64_t value_dim) {
  if (call.caps().backend != CUL_BACKEND_CPU && (dim > 256 || value_dim > 256))
    call.refuse(CUL_UNSUPPORTED, "D is %lld and Dv is %lld; the kernels take up to 256", static_cast<long long>(dim),
                static_cast<long long>(value_dim));
}

void check_starts(const Call& call, const View& cu, int64_t sequences) {
  call.dtype(cu, {DType::i32});
  call.shape(cu, {sequences + 1}, "[B+1], as cu_q");
}

PackedHeads check_packed(const Call& call, const View& q, const View& k, const View& v, const View& cu_q,
                         const View& cu_k, const View& o, const View& lse, float scale) {
  call.rank(q, 3, "[Tq,Hq,D]");
  call.rank(k, 3, "[Tk,Hkv,D]");
  if (v) call.rank(v, 3, "[Tk,Hkv,Dv]");
  call.rank(cu_q, 1, "[B+1]");
  call.dtype(q, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&k, &v, &o})
    if (*x) call.same_dtype(*x, q);
  call.dtype(cu_q, {DType::i32});
  if (lse) call.dtype(lse, {DType::f32});

  const int64_t Hq = q[1], D = q[2], Hkv = k[1], Dv = v ? v[2] : D;
  call.shape(k, {-1, -1, D}, "[Tk,Hkv,D], D as q's");
  if (v) call.shape(v, {k[0], Hkv, -1}, "[Tk,Hkv,Dv], Tk and Hkv as k's");
  if (Hq < 1 || Hkv < 1 || Hq % Hkv)
    call.refuse(CUL_SHAPE, "q has %lld heads but %s has %lld; Hq must be a multiple of Hkv",
                static_cast<long long>(Hq), k.name, static_cast<long long>(Hkv));
  if (D < 1 || Dv < 1)
    call.refuse(CUL_SHAPE, "q is %s and %s is %s; heads must not be empty", shape_text(q).c_str(), v ? v.name : k.name,
                shape_text(v ? v : k).c_str());
  if (cu_q[0] < 1) call.refuse(CUL_SHAPE, "cu_q is []; it must be [B+1], beginning with 0");
  check_starts(call, cu_k, cu_q[0] - 1);
  if (o) call.shape(o, {q[0], Hq, Dv}, "[Tq,Hq,Dv]");
  if (lse) call.shape(lse, {q[0], Hq}, "[Tq,Hq]");
  check_kernel_limits(call, D, Dv);
  if (!std::isfinite(scale)) call.refuse(CUL_RANGE, "scale is %g; it must be finite", scale);

  PackedHeads p;
  p.dtype = q.dtype;
  p.sequences = cu_q[0] - 1;
  p.query_heads = Hq;
  p.kv_heads = Hkv;
  p.dim = D;
  p.value_dim = Dv;
  p.query_rows = q[0];
  p.key_rows = k[0];
  p.q = token_rows(q);
  p.k = token_rows(k);
  p.v = token_rows(v);
  p.o = token_rows(o);
  p.lse = token_rows(lse);
  p.cu_q = cu_q.as<const int32_t>();
  p.cu_k = cu_k.as<const int32_t>();
  p.scale = scale == 0 ? 1 / std::sqrt(static_cast<float>(D)) : scale;
  p.aligned = glue::aligned_rows({&q, &k, &v, &o}) && D % 8 == 0 && Dv % 8 == 0;
  p.validate = call.validate();
  return p;
}

void check_outputs(const Call& call, std::initializer_list<const View*> outputs,
                   std::initializer_list<const View*> inputs) {
  for (const View* out : outputs)
    if (*out) call.distinct(*out);
  for (const View* out : outputs)
    for (const View* in : inputs) call.disjoint(*out, *in);
  for (const View* const* out = outputs.begin(); out != outputs.end(); ++out)
    for (const View* const* other = outputs.begin(); other != out; ++other) call.disjoint(**out, **other);
}

std::string starts_text(const char* name, const int32_t* cu, int64_t b, int64_t rows) {
  const int64_t at = cu[0] != 0 ? 0 : b + 1;
  return format("%s[%lld] = %d; it must begin with 0, never fall, and end within the %lld rows", name, ll(at), cu[at], ll(rows));
}

}  // namespace culebra

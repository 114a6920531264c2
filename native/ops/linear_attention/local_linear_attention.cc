#include "ops/linear_attention/local_linear_attention.h"

#include <cmath>

#include "ops/linear_attention/recurrence_check.h"

namespace culebra {
namespace {

void check_head_dim(const Call& call, const View& x, const char* letter) {
  if (x[3] < 8 || x[3] > 256 || x[3] % 8)
    call.refuse(CUL_SHAPE, "%s is %s; its last dimension %s must be a multiple of 8 from 8 to 256", x.name,
                shape_text(x).c_str(), letter);
}

void check_packing(const Call& call, const View& cu_queries, const View& cu_keys, int64_t batch) {
  if (!cu_queries && !cu_keys) return;
  if (!cu_queries || !cu_keys)
    call.refuse(CUL_NULL_POINTER, "cu_seqlens and cu_seqlens_k come together, but %s is absent",
                cu_queries ? "cu_seqlens_k" : "cu_seqlens");
  for (const View* cu : {&cu_queries, &cu_keys}) {
    call.rank(*cu, 1, "[N+1]");
    call.dtype(*cu, {DType::i32});
  }
  if (batch != 1)
    call.refuse(CUL_SHAPE, "with cu_seqlens the sequences are packed in one row, but the batch dimension is %lld",
                static_cast<long long>(batch));
  if (cu_queries[0] < 1) call.refuse(CUL_SHAPE, "cu_seqlens is []; it must be [N+1], beginning with 0");
  call.same_shape(cu_keys, cu_queries);
}

}  // namespace

LocalLinearAttentionParams check_local_linear_attention(const Call& call, const cul_local_linear_attention_args& args) {
  if (!(args.ridge_lambda > 0) || !std::isfinite(args.ridge_lambda))
    call.refuse(CUL_RANGE, "ridge_lambda is %g; it must be above 0", static_cast<double>(args.ridge_lambda));
  if (args.cg_iters < 1) call.refuse(CUL_RANGE, "cg_iters is %d; it must be 1 or more", args.cg_iters);
  if (!(args.tol >= 0) || !std::isfinite(args.tol))
    call.refuse(CUL_RANGE, "tol is %g; it must be 0 or more", static_cast<double>(args.tol));
  if (!std::isfinite(args.scale))
    call.refuse(CUL_RANGE, "scale is %g; it must be finite", static_cast<double>(args.scale));
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v");
  const View o = call.required(args.o, "o");
  const View cu_queries = call.optional(args.cu_seqlens, "cu_seqlens");
  const View cu_keys = call.optional(args.cu_seqlens_k, "cu_seqlens_k");
  call.rank(q, 4, "[B,T,H,K]");
  call.rank(k, 4, "[B,S,H,K]");
  call.rank(v, 4, "[B,S,HV,V]");
  call.dtype(q, {DType::f32, DType::f16, DType::bf16});
  for (const View* x : {&k, &v, &o}) call.same_dtype(*x, q);
  const int64_t B = q[0], T = q[1], H = q[2], K = q[3], S = k[1], HV = v[2], V = v[3];
  call.shape(k, {B, -1, H, K}, "[B,S,H,K]");
  call.shape(v, {B, S, -1, -1}, "[B,S,HV,V]");
  if (H < 1 || HV < 1 || HV % H)
    call.refuse(CUL_SHAPE, "v has %lld heads but q and k have %lld; HV must be a multiple of H",
                static_cast<long long>(HV), static_cast<long long>(H));
  check_head_dim(call, q, "K");
  check_head_dim(call, v, "V");
  if (S < T)
    call.refuse(CUL_SHAPE, "k has %lld positions but q %lld; the queries are the last positions of the cache",
                static_cast<long long>(S), static_cast<long long>(T));
  call.shape(o, {B, T, HV, V}, "[B,T,HV,V]");
  check_packing(call, cu_queries, cu_keys, B);
  call.distinct(o);
  for (const View* in : {&q, &k, &v, &cu_queries, &cu_keys}) call.disjoint(o, *in);

  LocalLinearAttentionParams p;
  p.dtype = q.dtype;
  p.batch = B;
  p.queries = T;
  p.keys = S;
  p.key_heads = H;
  p.value_heads = HV;
  p.key_dim = K;
  p.value_dim = V;
  p.q = recurrence_heads(q);
  p.k = recurrence_heads(k);
  p.v = recurrence_heads(v);
  p.o = recurrence_heads(o);
  p.sequences = cu_queries ? cu_queries[0] - 1 : B;
  p.cu_queries = cu_queries.as<const int32_t>();
  p.cu_keys = cu_keys.as<const int32_t>();
  p.scale = args.scale == 0 ? 1 / std::sqrt(static_cast<float>(K)) : args.scale;
  p.ridge = args.ridge_lambda;
  p.tol = args.tol;
  p.cg_iters = args.cg_iters;
  p.validate = call.validate();
  return p;
}

std::string LocalLinearAttentionParams::invalid_text(int64_t n) const {
  for (const auto& [cu, name, limit] : {std::tuple{cu_queries, "cu_seqlens", queries}, {cu_keys, "cu_seqlens_k", keys}}) {
    if (cu[0] != 0) return format("%s begins with %d; it must begin with 0", name, cu[0]);
    if (!valid_starts(cu, n, limit))
      return format("%s[%lld] = %d; it must lie between its predecessor %d and %lld", name, ll(n + 1), cu[n + 1], cu[n], ll(limit));
  }
  if (unclaimed(n)) return format("cu_seqlens ends with %d; the validator wants it to end with T = %lld", cu_queries[n + 1], ll(queries));
  return format("sequence %lld has %lld keys but %lld queries, which are the last of them", ll(n), ll(at(n).keys), ll(at(n).queries));
}

}  // namespace culebra

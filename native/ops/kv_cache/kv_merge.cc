#include "ops/kv_cache/kv_merge.h"

#include "backends/backend.h"

namespace culebra {

KvMergeParams check_kv_merge(const Call& call, const cul_kv_merge_args& args) {
  const View k = call.required(args.k, "k"), v = call.required(args.v, "v"),
             mass = call.required(args.attn_mass, "attn_mass"), cu = call.required(args.cu_seqlens, "cu_seqlens");
  const View merged_k = call.required(args.merged_k, "merged_k"), merged_v = call.required(args.merged_v, "merged_v"),
             origin = call.required(args.origin, "origin"), count = call.required(args.count, "count");
  call.rank(k, 3, "[T,Hkv,D]");
  call.rank(v, 3, "[T,Hkv,Dv]");
  call.rank(cu, 1, "[B+1]");
  call.dtype(k, {DType::f16, DType::bf16, DType::f32});
  for (const View* x : {&v, &merged_k, &merged_v}) call.same_dtype(*x, k);
  call.dtype(mass, {DType::f32});
  for (const View* x : {&cu, &origin, &count}) call.dtype(*x, {DType::i32});
  call.shape(v, {k[0], k[1], -1}, "[T,Hkv,Dv], T and Hkv as k's");
  call.shape(mass, {k[0], k[1]}, "[T,Hkv]");
  if (cu[0] < 1) call.refuse(CUL_SHAPE, "cu_seqlens is []; it must be [B+1], beginning with 0");
  if (!(args.eps >= 0 && args.eps <= 1)) call.refuse(CUL_RANGE, "eps is %g; it must be 0 to 1", args.eps);
  if (!(args.protect >= 0 && args.protect <= 1))
    call.refuse(CUL_RANGE, "protect is %g; it must be 0 to 1", args.protect);
  call.same_shape(merged_k, k);
  call.same_shape(merged_v, v);
  call.shape(origin, {k[0], k[1]}, "[T,Hkv]");
  call.shape(count, {cu[0] - 1, k[1]}, "[B,Hkv]");
  call.compact(cu);
  const View* outs[] = {&merged_k, &merged_v, &origin, &count};
  for (const View* out : outs) {
    call.distinct(*out);
    for (const View* in : {&k, &v, &mass, &cu}) call.disjoint(*out, *in);
    for (const View* other : outs)
      if (other < out) call.disjoint(*out, *other);
  }

  KvMergeParams p;
  p.dtype = k.dtype;
  p.tokens = k[0];
  p.heads = k[1];
  p.key_dim = k[2];
  p.value_dim = v[2];
  p.sequences = cu[0] - 1;
  p.k = head_rows(k);
  p.v = head_rows(v);
  p.mass = head_rows(mass);
  p.merged_k = head_rows(merged_k);
  p.merged_v = head_rows(merged_v);
  p.origin = head_rows(origin);
  p.cu_seqlens = cu.as<const int32_t>();
  p.count = count.as<int32_t>();
  p.count_stride = count.stride_of(0);
  p.eps = args.eps;
  p.protect = args.protect;
  p.validate = call.validate();
  if (call.caps().backend != CUL_BACKEND_CPU) {
    uint64_t bytes = 0;
    const auto array = [&](uint64_t size) {
      const uint64_t at = bytes;
      bytes += (static_cast<uint64_t>(p.tokens * p.heads) * size + 255) / 256 * 256;
      return at;
    };
    p.plan.flags_at = array(1);
    p.plan.begin_at = array(4);
    p.plan.end_at = array(4);
    p.plan.distance_at = array(4);
    p.plan.workspace_bytes = bytes;
    p.workspace = call.workspace(bytes);
  }
  return p;
}

std::string KvMergeParams::invalid_text(int64_t i) const {
  return format("cu_seqlens[%lld] = %d; it must begin with 0, never fall, and end within T = %lld", ll(i), cu_seqlens[i],
                ll(tokens));
}

}  // namespace culebra

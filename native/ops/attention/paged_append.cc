#include "ops/attention/paged_append.h"

#include "ops/attention/cache.h"

namespace culebra {

PagedAppendParams check_paged_append(const Call& call, const cul_paged_append_args& args) {
  const View k = call.required(args.k, "k"), v = call.required(args.v, "v"), slot = call.required(args.slot, "slot");
  const View cos = call.optional(args.cos, "cos"), sin = call.optional(args.sin, "sin");
  const View k_scale = call.optional(args.k_scale, "k_scale"), v_scale = call.optional(args.v_scale, "v_scale");
  const View k_cache = call.required(args.k_cache, "k_cache"), v_cache = call.required(args.v_cache, "v_cache");
  if (cos.present != sin.present)
    call.refuse(CUL_NULL_POINTER, "cos and sin come together, but %s is absent", cos ? "sin" : "cos");
  call.rank(k, 3, "[T,Hkv,D]");
  call.rank(v, 3, "[T,Hkv,Dv]");
  call.rank(slot, 1, "[T]");
  call.rank(k_cache, 4, "[P,page,Hkv,D]");
  call.rank(v_cache, 4, "[P,page,Hkv,Dv]");
  call.dtype(k, {DType::f16, DType::bf16, DType::f32});
  call.same_dtype(v, k);
  call.dtype(slot, {DType::i64});
  check_cache_types(call, k, k_cache, v_cache, k_scale, v_scale);

  const int64_t T = k[0], heads = k[1], pages = k_cache[0], page_size = k_cache[1];
  call.shape(v, {T, heads, -1}, "[T,Hkv,Dv], T and Hkv as k's");
  call.shape(slot, {T}, "[T]");
  call.shape(k_cache, {-1, -1, heads, k[2]}, "[P,page,Hkv,D], Hkv and D as k's");
  call.shape(v_cache, {pages, page_size, heads, v[2]}, "[P,page,Hkv,Dv], P and page as k_cache's, Dv as v's");
  check_scales_shape(call, k_scale, v_scale, heads);
  if (cos) {
    call.dtype(cos, {DType::f32});
    call.dtype(sin, {DType::f32});
    call.shape(cos, {T, -1}, "[T,R/2]");
    call.same_shape(sin, cos);
    if (2 * cos[1] > k[2])
      call.refuse(CUL_SHAPE, "cos is %s and turns %lld channels, but k is %s", shape_text(cos).c_str(),
                  static_cast<long long>(2 * cos[1]), shape_text(k).c_str());
  }
  call.flag(args.interleaved, "interleaved");
  for (const View* out : {&k_cache, &v_cache}) call.distinct(*out);
  for (const View* out : {&k_cache, &v_cache})
    for (const View* in : {&k, &v, &slot, &cos, &sin, &k_scale, &v_scale}) call.disjoint(*out, *in);
  call.disjoint(k_cache, v_cache);

  PagedAppendParams p;
  p.dtype = k.dtype;
  p.cache_dtype = k_cache.dtype;
  p.tokens = T;
  p.heads = heads;
  p.key_dim = k[2];
  p.value_dim = v[2];
  p.pages = pages;
  p.page_size = page_size;
  auto tokens = [](const View& x) { return PagedAppendParams::Rows{x.data, 0, x.stride_of(0), x.stride_of(1)}; };
  auto cache = [](const View& x) {
    return PagedAppendParams::Rows{x.data, x.stride_of(0), x.stride_of(1), x.stride_of(2)};
  };
  p.k = tokens(k);
  p.v = tokens(v);
  p.k_cache = cache(k_cache);
  p.v_cache = cache(v_cache);
  p.slot = slot.as<const int64_t>();
  if (cos) {
    p.cos = cos.as<const float>();
    p.sin = sin.as<const float>();
    p.cos_stride = cos.stride_of(0);
    p.sin_stride = sin.stride_of(0);
    p.rotary_pairs = cos[1];
  }
  p.k_scale = k_scale.as<const float>();
  p.v_scale = v_scale.as<const float>();
  p.interleaved = args.interleaved;
  p.validate = call.validate();
  p.aligned = p.key_dim % 8 == 0 && p.value_dim % 8 == 0;
  for (const PagedAppendParams::Rows* x : {&p.k, &p.v, &p.k_cache, &p.v_cache})
    p.aligned = p.aligned && x->page % 8 == 0 && x->row % 8 == 0 && x->head % 8 == 0;
  return p;
}

std::string PagedAppendParams::invalid_text(int64_t token) const {
  return format("slot[%lld] = %lld; it must be -1 or a row of the cache's %lld pages of %lld", ll(token), ll(slot[token]), ll(pages),
                ll(page_size));
}

}  // namespace culebra

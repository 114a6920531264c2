#include "ops/attention/cache.h"

namespace culebra {

void check_cache_types(const Call& call, const View& x, const View& k_cache, const View& v_cache, const View& k_scale,
                       const View& v_scale) {
  call.dtype(k_cache, {x.dtype, DType::f8e4m3});
  call.same_dtype(v_cache, k_cache);
  const bool f8 = k_cache.dtype == DType::f8e4m3;
  for (const View* s : {&k_scale, &v_scale}) {
    if (f8 && !*s) call.refuse(CUL_NULL_POINTER, "%s is required: the caches are f8e4m3", s->name);
    if (!f8 && *s)
      call.refuse(CUL_UNSUPPORTED, "%s is given, but the caches are %s, which take no scales", s->name,
                  name_of(k_cache.dtype));
    if (*s) call.dtype(*s, {DType::f32});
  }
}

void check_scales_shape(const Call& call, const View& k_scale, const View& v_scale, int64_t kv_heads) {
  for (const View* s : {&k_scale, &v_scale})
    if (*s) call.shape(*s, {kv_heads}, "[Hkv]");
}

}  // namespace culebra

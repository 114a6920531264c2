// What the operators on a paged KV cache check alike: k_cache, v_cache [P,page,Hkv,D], half or f32, or f8e4m3 with a
// scale per head.
#pragma once
#include "abi/call.h"

namespace culebra {

// Both caches are of one type: x's, or f8e4m3, which needs both scales where others take none.
void check_cache_types(const Call& call, const View& x, const View& k_cache, const View& v_cache, const View& k_scale,
                       const View& v_scale);
void check_scales_shape(const Call& call, const View& k_scale, const View& v_scale, int64_t kv_heads);

}  // namespace culebra

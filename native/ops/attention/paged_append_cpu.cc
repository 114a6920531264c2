#include <algorithm>

#include "backends/cpu/thread_pool.h"
#include "device/numeric.h"
#include "ops/attention/paged_append.h"

namespace culebra::cpu {
namespace {

using Params = PagedAppendParams;

// A channel of k after the rotation of the first 2 * rotary_pairs channels.
template <class T>
float rotated(const Params& p, const T* k, int64_t token, int64_t d) {
  const int64_t pairs = p.rotary_pairs;
  if (d >= 2 * pairs) return to_float(k[d]);
  const int64_t pair = p.interleaved ? d / 2 : d % pairs;
  const bool second = p.interleaved ? d % 2 : d >= pairs;
  const float a = to_float(k[p.interleaved ? 2 * pair : pair]),
              b = to_float(k[p.interleaved ? 2 * pair + 1 : pair + pairs]);
  const float c = p.cos[token * p.cos_stride + pair], s = p.sin[token * p.sin_stride + pair];
  return second ? b * c + a * s : a * c - b * s;
}

// One (token, head) row: value(d) / scale in the cache's type.
template <class C, class F>
void store(C* to, int64_t n, const float* scale, F&& value) {
  for (int64_t d = 0; d < n; ++d) to[d] = from_float<C>(scale ? value(d) / *scale : value(d));
}

template <class T, class C>
void append(const Params& p, int64_t token) {
  const int64_t slot = p.slot[token];
  if (slot < 0) return;
  auto in = [&](const Params::Rows& x, int64_t h) {
    return static_cast<const T*>(x.data) + token * x.row + h * x.head;
  };
  auto out = [&](const Params::Rows& x, int64_t h) {
    return static_cast<C*>(x.data) + slot / p.page_size * x.page + slot % p.page_size * x.row + h * x.head;
  };
  for (int64_t h = 0; h < p.heads; ++h) {
    const T* const k = in(p.k, h);
    const T* const v = in(p.v, h);
    if constexpr (std::is_same_v<T, C>) {  // what is not computed is copied bit for bit
      const int64_t turned = 2 * p.rotary_pairs;
      store(out(p.k_cache, h), turned, nullptr, [&](int64_t d) { return rotated(p, k, token, d); });
      std::copy(k + turned, k + p.key_dim, out(p.k_cache, h) + turned);
      std::copy(v, v + p.value_dim, out(p.v_cache, h));
    } else {
      store(out(p.k_cache, h), p.key_dim, p.k_scale + h, [&](int64_t d) { return rotated(p, k, token, d); });
      store(out(p.v_cache, h), p.value_dim, p.v_scale + h, [&](int64_t d) { return to_float(v[d]); });
    }
  }
}

template <class T>
void append_tokens(const Params& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    if (p.cache_dtype == DType::f8e4m3) {
      append<T, float8_e4m3_t>(p, t);
    } else {
      append<T, T>(p, t);
    }
  }
}

}  // namespace

void paged_append(const PagedAppendParams& p, ThreadPool& pool) {
  require_valid("paged_append", p);
  const int64_t per_token = p.heads * (p.key_dim + p.value_dim);
  pool.parallel_for(p.tokens, 32768 / (per_token + 1) + 1, [&](int64_t begin, int64_t end) {
    switch (p.dtype) {
      case DType::f16:
        return append_tokens<half_t>(p, begin, end);
      case DType::bf16:
        return append_tokens<bfloat16_t>(p, begin, end);
      default:
        return append_tokens<float>(p, begin, end);
    }
  });
}

}  // namespace culebra::cpu

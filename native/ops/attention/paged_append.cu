#include "ops/attention/paged_append.h"

#include "device/launch.h"
#include "device/validate.h"
#include "device/vector.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256, kUnit = 8;  // channels of a thread

// Channels [c, c + 8) of the key of one token and head, the rotary ones turned.
template <class T>
CUL_DEVICE_FN float turned(const PagedAppendParams& p, const T* k, int64_t token, int64_t c) {
  const int64_t pairs = p.rotary_pairs;
  const int64_t pair = p.interleaved ? c / 2 : c % pairs;
  const bool second = p.interleaved ? c % 2 != 0 : c >= pairs;
  const float a = to_float(k[p.interleaved ? 2 * pair : pair]), b = to_float(k[p.interleaved ? 2 * pair + 1 : pair + pairs]);
  const float cos = p.cos[token * p.cos_stride + pair], sin = p.sin[token * p.sin_stride + pair];
  return second ? b * cos + a * sin : a * cos - b * sin;
}

// Computes: cache[slot] = k, v; the first 2 rotary_pairs channels of k turned; f8: x / scale, rounded and saturated.
// Shapes:   k [T,Hkv,D], v [T,Hkv,Dv], slot [T], caches [P,page,Hkv,D or Dv].
// Layouts:  any strides with inner stride 1; 16-byte accesses where rows allow.
// Tiles:    8 channels a thread.
// Shared:   none.
// Order:    elementwise.
// Numerics: what is not computed keeps its bits; else f32, one rounding.
// Needs:    sm_80. Limit: the bytes of k and v, read and written once.
// Source:   Kwon et al., PagedAttention, arXiv:2309.06180; Su et al., arXiv:2104.09864.
template <class T, class C>
__global__ void __launch_bounds__(kThreads) append_kernel(PagedAppendParams p, int64_t key_units, int64_t units) {
  const int64_t all = p.tokens * p.heads * units, step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < all; i += step) {
    const int64_t unit = i % units, h = i / units % p.heads, token = i / units / p.heads, slot = p.slot[token];
    if (slot < 0) continue;
    const bool is_key = unit < key_units;
    const PagedAppendParams::Rows& from_rows = is_key ? p.k : p.v;
    const PagedAppendParams::Rows& to_rows = is_key ? p.k_cache : p.v_cache;
    const int64_t dim = is_key ? p.key_dim : p.value_dim, c = (is_key ? unit : unit - key_units) * kUnit;
    const int64_t rotary = is_key ? 2 * p.rotary_pairs : 0;
    const T* const from = static_cast<const T*>(from_rows.data) + token * from_rows.row + h * from_rows.head;
    C* const to = static_cast<C*>(to_rows.data) + slot / p.page_size * to_rows.page + slot % p.page_size * to_rows.row + h * to_rows.head;
    if constexpr (sizeof(T) == sizeof(C)) {
      if (c >= rotary && p.aligned) {
        constexpr int kSize = 16 / static_cast<int>(sizeof(T));
#pragma unroll
        for (int j = 0; j < kUnit; j += kSize) store_vector(to + c + j, load_vector<kSize>(from + c + j));
        continue;
      }
      for (int j = 0; j < kUnit && c + j < dim; ++j) to[c + j] = c + j < rotary ? from_float<C>(turned(p, from, token, c + j)) : from[c + j];
    } else {
      const float scale = (is_key ? p.k_scale : p.v_scale)[h];
      Vector<C, kUnit> values;
#pragma unroll
      for (int j = 0; j < kUnit; ++j) {
        if (c + j >= dim) break;
        values[j] = from_float<C>((c + j < rotary ? turned(p, from, token, c + j) : to_float(from[c + j])) / scale);
      }
      if (p.aligned) {
        store_vector(to + c, values);
      } else {
        for (int j = 0; j < kUnit && c + j < dim; ++j) to[c + j] = values[j];
      }
    }
  }
}

template <class T>
void append(const PagedAppendParams& p, NativeStream stream) {
  const int64_t key_units = (p.key_dim + kUnit - 1) / kUnit, units = key_units + (p.value_dim + kUnit - 1) / kUnit;
  const int64_t blocks = (p.tokens * p.heads * units + kThreads - 1) / kThreads;
  if (blocks == 0) return;
  const dim3 grid(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff));
  if (p.cache_dtype == DType::f8e4m3)
    launch(append_kernel<T, float8_e4m3_t>, grid, dim3(kThreads), 0, stream, p, key_units, units);
  else
    launch(append_kernel<T, T>, grid, dim3(kThreads), 0, stream, p, key_units, units);
}

}  // namespace

void paged_append(const PagedAppendParams& p, NativeStream stream) {
  if (p.validate) validate("paged_append", p, stream);
  if (p.dtype == DType::f16)
    append<half_t>(p, stream);
  else if (p.dtype == DType::bf16)
    append<bfloat16_t>(p, stream);
  else
    append<float>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

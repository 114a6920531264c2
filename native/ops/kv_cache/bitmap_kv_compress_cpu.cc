// A row's magnitudes are integers whose order is theirs; the least kept one is found bit by bit, counting a vector at a time.
#include <algorithm>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/kv_cache/bitmap_kv_compress.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/kv_cache/bitmap_kv_compress_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// How many of n keys, which are below 2^31, are at least `least` > 0; n is a multiple of 64.
HWY_INLINE int64_t count_at_least(const uint32_t* keys, int64_t n, uint32_t least) {
  const hn::RebindToSigned<F32Tag> d;
  const auto bound = hn::Set(d, static_cast<int32_t>(least - 1));
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += kLanes)
    count += static_cast<int64_t>(
        hn::CountTrue(d, hn::Gt(hn::LoadU(d, reinterpret_cast<const int32_t*>(keys + i)), bound)));
  return count;
}

template <class T>
void compress_row(const BitmapCompressParams& p, int64_t token, int64_t head, uint32_t* keys) {
  const T* x = p.x.at<const T>(0, token, head);
  T* values = p.values.at<T>(0, token, head);
  int64_t* bits = p.bits.at<int64_t>(0, token, head);
  for (int64_t c = 0; c < p.dim; ++c) keys[c] = magnitude_of(x[c]);
  // The largest bound that at least `keep` keys reach: the least kept key.
  uint32_t least = 0;
  for (uint32_t bit = sizeof(T) == 2 ? 1u << 14 : 1u << 30; bit; bit >>= 1)
    if (count_at_least(keys, p.dim, least | bit) >= p.keep) least |= bit;
  int64_t ties = p.keep - count_at_least(keys, p.dim, least + 1), kept = 0;
  for (int64_t word = 0; word < p.dim / 64; ++word) {
    uint64_t mask = 0;
    for (int64_t i = 0; i < 64; ++i) {
      const int64_t c = 64 * word + i;
      if (keys[c] < least || (keys[c] == least && ties-- <= 0)) continue;
      mask |= uint64_t{1} << i;
      values[kept++] = x[c];
    }
    bits[word] = static_cast<int64_t>(mask);
  }
}

void compress_rows(const BitmapCompressParams& p, int64_t begin, int64_t end) {
  static thread_local std::vector<uint32_t> keys;
  keys.resize(static_cast<size_t>(p.dim));
  with_float_type(p.dtype, [&](auto type) {
    for (int64_t i = begin; i < end; ++i) compress_row<decltype(type)>(p, i / p.heads, i % p.heads, keys.data());
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(compress_rows);

void bitmap_kv_compress(const BitmapCompressParams& p, ThreadPool& pool) {
  const auto run = HWY_DYNAMIC_DISPATCH(compress_rows);
  pool.parallel_for(p.tokens * p.heads, 4096 / p.dim + 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

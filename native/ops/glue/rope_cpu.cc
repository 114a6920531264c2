#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/glue/rope_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"

#include "backends/cpu/thread_pool.h"
#include "ops/glue/rope.h"
#include "ops/glue/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
using namespace glue;

// (a, b) turned by the angle whose cosine and sine are c and s.
struct Turned {
  V a, b;
};
HWY_INLINE Turned turn(V a, V b, V c, V s) {
  return {hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), hn::MulAdd(b, c, hn::Mul(a, s))};
}

template <class T>
void turn_halves(const T* x, T* y, const float* cos, const float* sin, int64_t pairs) {
  for_vectors(pairs, [&](int64_t i, size_t count) HWY_ATTR {
    const Turned t = turn(load(x + i, count), load(x + pairs + i, count), load(cos + i, count), load(sin + i, count));
    store(t.a, y + i, count);
    store(t.b, y + pairs + i, count);
  });
}

template <class T>
void turn_neighbours(const T* x, T* y, const float* cos, const float* sin, int64_t pairs) {
  const D d;
  const size_t lanes = hn::Lanes(d);
  HWY_ALIGN float wide[2 * hn::MaxLanes(d)];
  for_vectors(pairs, [&](int64_t i, size_t count) HWY_ATTR {
    const size_t first = std::min(2 * count, lanes), second = 2 * count - first;
    hn::Store(load(x + 2 * i, first), d, wide);
    if (second > 0) hn::Store(load(x + 2 * i + lanes, second), d, wide + lanes);
    V a, b;
    hn::LoadInterleaved2(d, wide, a, b);
    const Turned t = turn(a, b, load(cos + i, count), load(sin + i, count));
    hn::StoreInterleaved2(t.a, t.b, d, wide);
    store(hn::Load(d, wide), y + 2 * i, first);
    if (second > 0) store(hn::Load(d, wide + lanes), y + 2 * i + lanes, second);
  });
}

template <class T>
void rope_head(const RopeParams& p, int64_t token, int64_t head) {
  const T* x = p.x.row<const T>(token) + head * p.x_head_stride;
  T* y = p.y.row<T>(token) + head * p.y_head_stride;
  const int64_t position = p.positions[token];
  int64_t turned = 0;
  if (p.in_table(position)) {
    turned = p.turned;
    const float* cos = p.cos.row<const float>(position);
    const float* sin = p.sin.row<const float>(position);
    p.interleaved ? turn_neighbours(x, y, cos, sin, turned / 2) : turn_halves(x, y, cos, sin, turned / 2);
  }
  if (x != y && turned < p.channels) std::memcpy(y + turned, x + turned, static_cast<size_t>(p.channels - turned) * sizeof(T));
}

void rope_heads(const RopeParams& p, int64_t begin, int64_t end) {
  with_float(p.dtype, [&](auto tag) {
    for (int64_t i = begin; i < end; ++i) rope_head<decltype(tag)>(p, i / p.heads, i % p.heads);
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(rope_heads);

void rope(const RopeParams& p, ThreadPool& pool) {
  if (p.validate) require_valid("rope", p);
  pool.parallel_for(p.tokens * p.heads, glue::row_grain(p.channels),
                    [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(rope_heads)(p, begin, end); });
}
}  // namespace culebra::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/glue/gated_products_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"

#include <cmath>

#include "backends/cpu/thread_pool.h"
#include "ops/glue/gated_products.h"
#include "ops/glue/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
using namespace glue;

V gelu_erf(V x) {
  HWY_ALIGN float lanes[hn::MaxLanes(D())];
  hn::Store(x, D(), lanes);
  for (size_t i = 0; i < hn::Lanes(D()); ++i) lanes[i] *= 0.5f * std::erfc(lanes[i] * -0.70710678f);
  return hn::Load(D(), lanes);
}

// x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
V gelu_tanh(V x) {
  const D d;
  const V cubic = hn::MulAdd(hn::Mul(hn::Mul(x, x), x), hn::Set(d, 0.044715f), x);
  return hn::Mul(x, sigmoid(hn::Mul(cubic, hn::Set(d, 1.5957691f))));
}

template <Activation kActivation>
HWY_INLINE V activated(V gate) {
  switch (kActivation) {
    case Activation::silu: return hn::Mul(gate, sigmoid(gate));
    case Activation::gelu_erf: return gelu_erf(gate);
    case Activation::gelu_tanh: return gelu_tanh(gate);
    case Activation::sigmoid: return sigmoid(gate);
  }
}

template <class T, Activation kActivation>
void gated_product_span(const GatedProductParams& p, int64_t row, int64_t first, int64_t count) {
  const T* gate = p.gate.row<const T>(row) + (p.gate_per_row ? 0 : first);
  const T* value = p.value.row<const T>(row) + first;
  T* y = p.y.row<T>(row) + first;
  if (p.gate_per_row) {
    const V factor = activated<kActivation>(hn::Set(D(), to_float(*gate)));
    for_vectors(count, [&](int64_t i, size_t n) HWY_ATTR { store(hn::Mul(factor, load(value + i, n)), y + i, n); });
  } else {
    for_vectors(count, [&](int64_t i, size_t n) HWY_ATTR {
      store(hn::Mul(activated<kActivation>(load(gate + i, n)), load(value + i, n)), y + i, n);
    });
  }
}

void gated_product_piece(const GatedProductParams& p, int64_t row, int64_t first, int64_t count) {
  with_float(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    switch (p.activation) {
      case Activation::silu: return gated_product_span<T, Activation::silu>(p, row, first, count);
      case Activation::gelu_erf: return gated_product_span<T, Activation::gelu_erf>(p, row, first, count);
      case Activation::gelu_tanh: return gated_product_span<T, Activation::gelu_tanh>(p, row, first, count);
      case Activation::sigmoid: return gated_product_span<T, Activation::sigmoid>(p, row, first, count);
    }
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(gated_product_piece);

void gated_product(const GatedProductParams& p, ThreadPool& pool) {
  // Rows are cut too: compact operands are one row.
  constexpr int64_t kSpan = 4096;
  const int64_t spans = (p.columns + kSpan - 1) / kSpan;
  pool.parallel_for(p.rows * spans, glue::row_grain(std::min(p.columns, kSpan)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % spans * kSpan;
      HWY_DYNAMIC_DISPATCH(gated_product_piece)(p, i / spans, first, std::min(kSpan, p.columns - first));
    }
  });
}
}  // namespace culebra::cpu
#endif

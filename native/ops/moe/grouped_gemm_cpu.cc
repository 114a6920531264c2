// Rows meet their expert's matrix as in moe_mlp: a block of its rows is dequantised once for all tokens of the expert. An element's sum
// is made alike everywhere: its bits depend neither on threads nor on the other rows.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/moe/grouped_gemm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/moe/grouped_gemm_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/moe/expert_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = GroupedGemmParams;

HWY_INLINE bool works_in_bf16(const Params& p) { return p.dtype == DType::bf16 && multiplies_bf16(p.b); }

// Rows [first + begin, first + end) as f32, unless they are multiplied as they are.
void grouped_inputs(const Params& p, int64_t first, int64_t begin, int64_t end) {
  if (works_in_bf16(p)) return;
  const int64_t pitch = padded(p.k());
  for (int64_t r = begin; r < end; ++r) {
    float* const to = static_cast<float*>(p.workspace) + r * pitch;
    const int64_t row = p.gather ? p.gather[first + r] : first + r, at = row * p.lda;
    if (row < 0) {
      std::fill(to, to + pitch, 0.0f);
    } else if (p.dtype == DType::f16) {
      load_row(static_cast<const half_t*>(p.a) + at, p.k(), to);
    } else if (p.dtype == DType::bf16) {
      load_row(static_cast<const bfloat16_t*>(p.a) + at, p.k(), to);
    } else {
      load_row(static_cast<const float8_e4m3_t*>(p.a) + at, p.k(), to);
      for (int64_t k = 0; k < p.k(); k += 128)
        scale_row(to + k, p.a_scale[row * p.a_scale_stride + k / 128], std::min<int64_t>(p.k() - k, 128));
    }
  }
}

HWY_INLINE void store_sum(const Params& p, int64_t row, int64_t column, float value) {
  const int64_t at = row * p.ldc + column;
  if (p.out_dtype == DType::f16) static_cast<half_t*>(p.c)[at] = from_float<half_t>(value);
  else if (p.out_dtype == DType::bf16) static_cast<bfloat16_t*>(p.c)[at] = from_float<bfloat16_t>(value);
  else static_cast<float*>(p.c)[at] = value;
}

// Items: (expert with rows in the chunk, kExpertBlockPairs pairs of its matrix' rows).
void grouped_products(const Params& p, const int32_t* active, int64_t first, int64_t last, int64_t begin, int64_t end) {
  const int64_t pairs = p.gated() ? p.columns() : (p.n() + 1) / 2, blocks = (pairs + kBlockPairs - 1) / kBlockPairs;
  const int64_t pitch = padded(p.k());
  for (int64_t item = begin; item < end; ++item) {
    const int64_t e = active[item / blocks], i0 = item % blocks * kBlockPairs, i1 = std::min(i0 + kBlockPairs, pairs);
    const int64_t s0 = std::max(p.offsets[e], first), s1 = std::min(p.offsets[e + 1], last);
    const auto gate_and_up = [&](int64_t i) { return std::pair{i, p.columns() + i}; };
    const auto neighbours = [](int64_t i) { return std::pair{2 * i, 2 * i + 1}; };
    const auto gated = [&](int64_t s, int64_t i, const float* out) { store_sum(p, s, i, out[0] / (1 + std::exp(-out[0])) * out[1]); };
    const auto plain = [&](int64_t s, int64_t i, const float* out) {
      for (int64_t n = 2 * i; n < std::min(2 * i + 2, p.n()); ++n) store_sum(p, s, n, out[n - 2 * i]);
    };
    if (works_in_bf16(p)) {
      static thread_local std::vector<bfloat16_t> zeros;  // the row of a token that is not there
      if (static_cast<int64_t>(zeros.size()) < p.k()) zeros.assign(static_cast<size_t>(p.k()), bfloat16_t{});
      const auto input = [&](int64_t s) {
        const int64_t row = p.gather ? p.gather[s] : s;
        return row < 0 ? zeros.data() : static_cast<const bfloat16_t*>(p.a) + row * p.lda;
      };
      if (p.gated()) multiply_bf16_pairs(p.b, e, i0, i1, gate_and_up, s0, s1, input, gated);
      else multiply_bf16_pairs(p.b, e, i0, i1, neighbours, s0, s1, input, plain);
      continue;
    }
    const auto input = [&](int64_t s) { return static_cast<const float*>(p.workspace) + (s - first) * pitch; };
    if (p.gated()) multiply_pairs(p.b, e, i0, i1, gate_and_up, s0, s1, input, gated);
    else multiply_pairs(p.b, e, i0, i1, neighbours, s0, s1, input, plain);
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(grouped_inputs);
HWY_EXPORT(grouped_products);

namespace {
int64_t pitch(const GroupedGemmParams& p) { return (p.k() + 15) / 16 * 16; }
}  // namespace

uint64_t grouped_workspace_bytes(const GroupedGemmParams& p) {
  return static_cast<uint64_t>(4 * (p.chunk * pitch(p) + p.experts()));
}

void moe_grouped_gemm(const GroupedGemmParams& p, ThreadPool& pool) {
  require_valid("moe_grouped_gemm", p);
  if (p.columns() == 0) return;
  constexpr int64_t kGrain = 131072;  // products worth waking a thread for
  const int64_t used = p.offsets[p.experts()];
  int32_t* const active = reinterpret_cast<int32_t*>(static_cast<float*>(p.workspace) + p.chunk * pitch(p));
  for (int64_t first = 0; first < used; first += p.chunk) {
    const int64_t last = std::min(first + p.chunk, used);
    int64_t count = 0;
    for (int64_t e = 0; e < p.experts(); ++e)
      if (std::max(p.offsets[e], first) < std::min(p.offsets[e + 1], last)) active[count++] = static_cast<int32_t>(e);
    pool.parallel_for(last - first, kGrain / (p.k() + 1) + 1,
                      [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(grouped_inputs)(p, first, begin, end); });
    const int64_t pairs = p.gated() ? p.columns() : (p.n() + 1) / 2, blocks = (pairs + kExpertBlockPairs - 1) / kExpertBlockPairs;
    const int64_t work = 16 * p.k() * ((last - first) / count + 2);
    pool.parallel_for(count * blocks, kGrain / (work + 1) + 1, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(grouped_products)(p, active, first, last, begin, end);
    });
  }
}

}  // namespace culebra::cpu
#endif

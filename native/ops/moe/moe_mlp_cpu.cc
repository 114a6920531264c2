// Tokens are grouped by expert, so that each expert's rows are read and dequantised once for all its tokens. An output
// is the sum of its slots in their order: bits depend neither on threads nor on the other tokens.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/moe/moe_mlp.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/moe/moe_mlp_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/moe/expert_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = MoeMlpParams;

HWY_INLINE float activate(const Params& p, float gate, float up) {
  switch (p.act) {
    case CUL_MOE_ACT_GELU:
      return 0.5f * gate * (1 + std::erf(gate * 0.70710678118654752f)) * up;
    case CUL_MOE_ACT_SWIGLU_OAI:
      gate = gate > p.limit ? p.limit : gate;
      up = up > p.limit ? p.limit : up < -p.limit ? -p.limit : up;
      return (up + 1) * gate / (1 + std::exp(-p.alpha * gate));
    default:
      return gate / (1 + std::exp(-gate)) * up;
  }
}

// hidden[0, n) of the sums [gates, ups] of a block of columns.
HWY_INLINE void activate(const Params& p, const float* sums, int64_t n, float* hidden) {
  if (p.act != CUL_MOE_ACT_SILU) {
    for (int64_t i = 0; i < n; ++i) hidden[i] = activate(p, sums[i], sums[kBlockPairs + i]);
    return;
  }
  for (int64_t i = 0; i < n; i += kLanes) store_f32(hn::Mul(silu(load(sums + i)), load(sums + kBlockPairs + i)), hidden + i);
}

// ---- the four steps of a chunk of tokens

// Whether inputs and hidden rows are bf16 as well: inputs then stay where they are, and a hidden row takes half of its place.
HWY_INLINE bool works_in_bf16(const Params& p) { return p.dtype == DType::bf16 && multiplies_bf16(p.w13) && multiplies_bf16(p.w2); }

HWY_INLINE bfloat16_t* bf16_hidden(const Params& p, int64_t slot) {
  return reinterpret_cast<bfloat16_t*>(p.hidden() + slot * p.expert_width_pitch());
}

template <class T>
void load_inputs(const Params& p, int64_t first, int64_t begin, int64_t end) {
  if (works_in_bf16(p)) return;
  for (int64_t t = begin; t < end; ++t)
    load_row(static_cast<const T*>(p.x) + (first + t) * p.x_stride, p.width, p.inputs() + t * p.width_pitch());
}

// hidden = act(gate) * up; items: (active expert, kBlockPairs columns)
template <class T>
void up_projection(const Params& p, int64_t first, int64_t begin, int64_t end) {
  const int64_t pitch = p.expert_width_pitch(), blocks = p.up_blocks();
  const bool bf16 = works_in_bf16(p);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t e = p.active()[item / blocks], i0 = item % blocks * kBlockPairs;
    const int64_t i1 = std::min(i0 + kBlockPairs, p.expert_width), s0 = p.offsets()[e], s1 = p.offsets()[e + 1];
    const T* bias = p.b13 ? static_cast<const T*>(p.b13) + e * p.b13_stride : nullptr;
    const auto gate_and_up = [&](int64_t i) { return std::pair{i, p.expert_width + i}; };
    // [slot][gates, ups] of these columns: activated together below.
    static thread_local std::vector<float> sums;
    sums.resize(static_cast<size_t>((s1 - s0) * 2 * kBlockPairs + kRowPad));
    const auto keep = [&](int64_t s, int64_t i, const float* out) {
      float* const to = sums.data() + (s - s0) * 2 * kBlockPairs + i - i0;
      to[0] = out[0] + (bias ? to_float(bias[i]) : 0.0f);
      to[kBlockPairs] = out[1] + (bias ? to_float(bias[p.expert_width + i]) : 0.0f);
    };
    if (bf16)
      multiply_bf16_pairs(
          p.w13, e, i0, i1, gate_and_up, s0, s1,
          [&](int64_t s) { return static_cast<const bfloat16_t*>(p.x) + (first + p.slots()[s] / p.slots_per_token) * p.x_stride; }, keep);
    else
      multiply_pairs(
          p.w13, e, i0, i1, gate_and_up, s0, s1,
          [&](int64_t s) { return p.inputs() + p.slots()[s] / p.slots_per_token * p.width_pitch(); }, keep);
    for (int64_t s = s0; s < s1; ++s) {
      float hidden[kBlockPairs + kRowPad];
      activate(p, sums.data() + (s - s0) * 2 * kBlockPairs, i1 - i0, hidden);
      if (bf16) store_row(hidden, i1 - i0, bf16_hidden(p, p.slots()[s]) + i0);
      else store_row(hidden, i1 - i0, p.hidden() + p.slots()[s] * pitch + i0);
    }
    if (bf16) continue;
    if (i1 == p.expert_width)
      for (int64_t s = s0; s < s1; ++s) {
        float* row = p.hidden() + p.slots()[s] * pitch;
        std::fill(row + p.expert_width, row + pitch, 0.0f);
      }
  }
}

// outputs = w2 hidden + b2; items: (active expert, 2 kBlockPairs columns)
template <class T>
void down_projection(const Params& p, int64_t, int64_t begin, int64_t end) {
  const int64_t pitch = p.width_pitch(), blocks = p.down_blocks();
  const bool bf16 = works_in_bf16(p);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t e = p.active()[item / blocks], first = item % blocks * kBlockPairs;
    const int64_t last = std::min(first + kBlockPairs, (p.width + 1) / 2);
    const T* bias = p.b2 ? static_cast<const T*>(p.b2) + e * p.b2_stride : nullptr;
    const auto neighbours = [](int64_t i) { return std::pair{2 * i, 2 * i + 1}; };
    const auto output = [&](int64_t s, int64_t i, const float* out) {
      float* y = p.outputs() + p.slots()[s] * pitch;
      for (int64_t n = 2 * i; n < std::min(2 * i + 2, p.width); ++n) y[n] = out[n - 2 * i] + (bias ? to_float(bias[n]) : 0.0f);
    };
    const int64_t s0 = p.offsets()[e], s1 = p.offsets()[e + 1];
    if (bf16)
      multiply_bf16_pairs(
          p.w2, e, first, last, neighbours, s0, s1, [&](int64_t s) { return bf16_hidden(p, p.slots()[s]); }, output);
    else
      multiply_pairs(
          p.w2, e, first, last, neighbours, s0, s1, [&](int64_t s) { return p.hidden() + p.slots()[s] * p.expert_width_pitch(); }, output);
  }
}

template <class T>
void combine(const Params& p, int64_t first, int64_t begin, int64_t end) {
  static thread_local std::vector<float> sum;
  sum.resize(static_cast<size_t>(p.width_pitch()));
  const F32Tag d;
  for (int64_t t = begin; t < end; ++t) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (int64_t j = 0; j < p.slots_per_token; ++j) {
      const int32_t id = p.ids[(first + t) * p.ids_stride + j];
      if (id < 0 || id >= p.experts) continue;
      const F32 weight = hn::Set(d, p.weights[(first + t) * p.weights_stride + j]);
      const float* y = p.outputs() + (t * p.slots_per_token + j) * p.width_pitch();
      for (int64_t i = 0; i < p.width; i += kLanes)
        store_f32(hn::MulAdd(weight, load(y + i), load(sum.data() + i)), sum.data() + i);
    }
    store_row(sum.data(), p.width, static_cast<T*>(p.y) + (first + t) * p.y_stride);
  }
}

#define CULEBRA_BY_TYPE(step, function)                                       \
  void step(const Params& p, int64_t first, int64_t begin, int64_t end) {     \
    if (p.dtype == DType::f16) return function<half_t>(p, first, begin, end); \
    return function<bfloat16_t>(p, first, begin, end);                        \
  }
CULEBRA_BY_TYPE(moe_inputs, load_inputs)
CULEBRA_BY_TYPE(moe_up, up_projection)
CULEBRA_BY_TYPE(moe_down, down_projection)
CULEBRA_BY_TYPE(moe_combine_slots, combine)
#undef CULEBRA_BY_TYPE

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(moe_inputs);
HWY_EXPORT(moe_up);
HWY_EXPORT(moe_down);
HWY_EXPORT(moe_combine_slots);

namespace {

// A counting sort of the chunk's slots by expert, in token order. Returns how many experts have some.
int64_t group_slots(const MoeMlpParams& p, int64_t first, int64_t tokens) {
  int32_t* const offsets = p.offsets();
  std::fill(offsets, offsets + p.experts + 1, 0);
  auto for_each_slot = [&](auto&& f) {
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t j = 0; j < p.slots_per_token; ++j)
        if (const int32_t id = p.ids[(first + t) * p.ids_stride + j]; id >= 0 && id < p.experts)
          f(id, static_cast<int32_t>(t * p.slots_per_token + j));
  };
  for_each_slot([&](int32_t id, int32_t) { ++offsets[id]; });
  // offsets[e] becomes the end of expert e, and by filling backwards its beginning.
  int64_t active = 0;
  int32_t end = 0;
  for (int64_t e = 0; e <= p.experts; ++e) {
    const int32_t count = e < p.experts ? offsets[e] : 0;
    if (count > 0) p.active()[active++] = static_cast<int32_t>(e);
    end += count;
    offsets[e] = end;
  }
  for (int64_t slot = tokens * p.slots_per_token - 1; slot >= 0; --slot) {
    const int32_t id = p.ids[(first + slot / p.slots_per_token) * p.ids_stride + slot % p.slots_per_token];
    if (id >= 0 && id < p.experts) p.slots()[--offsets[id]] = static_cast<int32_t>(slot);
  }
  return active;
}

}  // namespace

void moe_mlp(const MoeMlpParams& p, ThreadPool& pool) {
  if (p.tokens == 0 || p.width == 0) return;
  if (p.routed) moe_route(p.route, pool);
  if (p.validate) require_valid("moe_mlp", p.indices());
  constexpr int64_t kGrain = 131072;  // products worth waking a thread for
  for (int64_t first = 0; first < p.tokens; first += p.chunk) {
    const int64_t tokens = std::min(p.chunk, p.tokens - first);
    auto step = [&](auto run, int64_t items, int64_t work_per_item) {
      pool.parallel_for(items, kGrain / (work_per_item + 1) + 1,
                        [&](int64_t begin, int64_t end) { run(p, first, begin, end); });
    };
    const int64_t active = group_slots(p, first, tokens);
    const int64_t slots_per_expert = active ? (p.offsets()[p.experts] + active - 1) / active : 0;
    step(HWY_DYNAMIC_DISPATCH(moe_inputs), tokens, p.width);
    step(HWY_DYNAMIC_DISPATCH(moe_up), active * p.up_blocks(), 16 * p.width * (slots_per_expert + 2));
    step(HWY_DYNAMIC_DISPATCH(moe_down), active * p.down_blocks(), 16 * p.expert_width * (slots_per_expert + 2));
    step(HWY_DYNAMIC_DISPATCH(moe_combine_slots), tokens, p.width * p.slots_per_token);
  }
}

}  // namespace culebra::cpu
#endif

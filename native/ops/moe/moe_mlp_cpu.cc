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
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = MoeMlpParams;

constexpr int64_t kBlockPairs = Params::kBlockPairs;

// ---- rows of an expert as f32

template <class S>
HWY_INLINE float int4_scale(const ExpertMatrices& m, int64_t e, int64_t n, int64_t g) {
  return to_float(static_cast<const S*>(m.scales)[e * m.scale_expert_stride + n * m.scale_row_stride + g]);
}

HWY_INLINE void load_int4_row(const ExpertMatrices& m, int64_t e, int64_t n, float* to) {
  const F32Tag d;
  const hn::RebindToSigned<F32Tag> di;
  const hn::Rebind<uint8_t, F32Tag> d8;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const uint8_t* bytes = static_cast<const uint8_t*>(m.data) + e * m.expert_stride + n * m.row_stride;
  for (int64_t begin = 0, g = 0; begin < m.columns; begin += m.group, ++g) {
    const int64_t end = std::min(begin + m.group, m.columns);
    const float scale =
        m.scale_dtype == DType::f16 ? int4_scale<half_t>(m, e, n, g) : int4_scale<bfloat16_t>(m, e, n, g);
    int zero = 8;
    if (m.zeros) zero = m.zeros[e * m.zero_expert_stride + n / 2 * m.zero_row_stride + g] >> (n % 2 * 4) & 15;
    int64_t i = begin;
    for (; i + 2 * lanes <= end; i += 2 * lanes) {
      const auto pair = hn::PromoteTo(di, hn::LoadU(d8, bytes + i / 2));
      const auto z = hn::Set(di, zero);
      const F32 s = hn::Set(d, scale);
      const F32 even = hn::Mul(hn::ConvertTo(d, hn::Sub(hn::And(pair, hn::Set(di, 15)), z)), s);
      const F32 odd = hn::Mul(hn::ConvertTo(d, hn::Sub(hn::ShiftRight<4>(pair), z)), s);
      hn::StoreInterleaved2(even, odd, d, to + i);
    }
    for (; i < end; ++i) to[i] = static_cast<float>((bytes[i / 2] >> (i % 2 * 4) & 15) - zero) * scale;
  }
  std::fill(to + m.columns, to + padded(m.columns), 0.0f);
}

HWY_INLINE void load_f8_row(const ExpertMatrices& m, int64_t e, int64_t n, float* to) {
  const float8_e4m3_t* row = static_cast<const float8_e4m3_t*>(m.data) + e * m.expert_stride + n * m.row_stride;
  const float* scales = static_cast<const float*>(m.scales) + e * m.scale_expert_stride + n / 128 * m.scale_row_stride;
  load_row(row, m.columns, to);
  for (int64_t i = 0; i < m.columns; i += 128)
    scale_row(to + i, scales[i / 128], std::min<int64_t>(m.columns - i, 128));
}

template <class T>
HWY_INLINE void load_expert_row(const Params& p, const ExpertMatrices& m, int64_t e, int64_t n, float* to) {
  switch (p.storage) {
    case CUL_EXPERTS_INT4:
      return load_int4_row(m, e, n, to);
    case CUL_EXPERTS_F8:
      return load_f8_row(m, e, n, to);
    default:
      return load_row(static_cast<const T*>(m.data) + e * m.expert_stride + n * m.row_stride, m.columns, to);
  }
}

// ---- products

// Rows of a matrix and tokens in flight at once: as many sums as registers hold beside their operands.
constexpr int64_t kRows = 4;
constexpr int64_t kTokenTile = kLanes == 16 ? 4 : 2;

// out[t][r] = row r . x_t, rows pitch apart, for kTokens inputs x_t
template <int64_t kTokens>
HWY_INLINE void dot_rows(const float* rows, const float* const* x, int64_t pitch, float (*out)[kRows]) {
  const F32Tag d;
  F32 sum[kTokens][kRows];
  HWY_UNROLL(16)
  for (int64_t t = 0; t < kTokens; ++t) {
    HWY_UNROLL(16)
    for (int64_t r = 0; r < kRows; ++r) sum[t][r] = hn::Zero(d);
  }
  for (int64_t i = 0; i < pitch; i += kLanes) {
    F32 row[kRows];
    HWY_UNROLL(16)
    for (int64_t r = 0; r < kRows; ++r) row[r] = load(rows + r * pitch + i);
    HWY_UNROLL(16)
    for (int64_t t = 0; t < kTokens; ++t) {
      const F32 input = load(x[t] + i);
      HWY_UNROLL(16)
      for (int64_t r = 0; r < kRows; ++r) sum[t][r] = hn::MulAdd(row[r], input, sum[t][r]);
    }
  }
  HWY_UNROLL(16)
  for (int64_t t = 0; t < kTokens; ++t) sum_of_lanes(sum[t][0], sum[t][1], sum[t][2], sum[t][3], out[t]);
}

HWY_INLINE void dot_rows(const float* rows, const float* const* x, int64_t tokens, int64_t pitch, float (*out)[kRows]) {
  if constexpr (kTokenTile == 4) {
    if (tokens == 4) return dot_rows<4>(rows, x, pitch, out);
    if (tokens == 3) return dot_rows<3>(rows, x, pitch, out);
  }
  if (tokens == 2) return dot_rows<2>(rows, x, pitch, out);
  dot_rows<1>(rows, x, pitch, out);
}

// Pairs [begin, end) of rows of expert e's matrix, pair i = rows_of(i), meet the slots [s0, s1). Rows wait as f32 while
// all tokens pass: with few tokens kRows, which stay in the L1 cache, else all of the block.
template <class T, class Rows, class Input, class Output>
HWY_INLINE void multiply_pairs(const Params& p, const ExpertMatrices& m, int64_t e, int64_t begin, int64_t end,
                               Rows&& rows_of, int64_t s0, int64_t s1, Input&& input, Output&& output) {
  static thread_local std::vector<float> memory;
  const int64_t pitch = padded(m.columns);
  memory.resize(static_cast<size_t>(2 * kBlockPairs * pitch));
  float* const rows = memory.data();
  const int64_t step = s1 - s0 > kTokenTile ? kBlockPairs : kRows / 2;
  for (int64_t block = begin; block < end; block += step) {
    const int64_t pairs = std::min(step, end - block);
    for (int64_t i = 0; i < pairs; ++i) {
      const auto [a, b] = rows_of(block + i);
      load_expert_row<T>(p, m, e, a, rows + 2 * i * pitch);
      if (b < m.rows) load_expert_row<T>(p, m, e, b, rows + (2 * i + 1) * pitch);
    }
    for (int64_t s = s0; s < s1; s += kTokenTile) {
      const int64_t tokens = std::min(kTokenTile, s1 - s);
      const float* x[kTokenTile];
      for (int64_t t = 0; t < tokens; ++t) x[t] = input(s + t);
      for (int64_t i = 0; i < pairs; i += kRows / 2) {
        float out[kTokenTile][kRows];  // of a last lone pair, two columns are leftovers that nobody reads
        dot_rows(rows + 2 * i * pitch, x, tokens, pitch, out);
        for (int64_t t = 0; t < tokens; ++t)
          for (int64_t j = i; j < std::min(i + kRows / 2, pairs); ++j) output(s + t, block + j, out[t] + 2 * (j - i));
      }
    }
  }
}

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

// ---- the four steps of a chunk of tokens

template <class T>
void load_inputs(const Params& p, int64_t first, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t)
    load_row(static_cast<const T*>(p.x) + (first + t) * p.x_stride, p.width, p.inputs() + t * p.width_pitch());
}

// hidden = act(gate) * up; items: (active expert, kBlockPairs columns)
template <class T>
void up_projection(const Params& p, int64_t, int64_t begin, int64_t end) {
  const int64_t pitch = p.expert_width_pitch(), blocks = p.up_blocks();
  for (int64_t item = begin; item < end; ++item) {
    const int64_t e = p.active()[item / blocks], i0 = item % blocks * kBlockPairs;
    const int64_t i1 = std::min(i0 + kBlockPairs, p.expert_width), s0 = p.offsets()[e], s1 = p.offsets()[e + 1];
    const T* bias = p.b13 ? static_cast<const T*>(p.b13) + e * p.b13_stride : nullptr;
    multiply_pairs<T>(
        p, p.w13, e, i0, i1, [&](int64_t i) { return std::pair{i, p.expert_width + i}; }, s0, s1,
        [&](int64_t s) { return p.inputs() + p.slots()[s] / p.slots_per_token * p.width_pitch(); },
        [&](int64_t s, int64_t i, const float* out) {
          const float gate = out[0] + (bias ? to_float(bias[i]) : 0.0f);
          const float up = out[1] + (bias ? to_float(bias[p.expert_width + i]) : 0.0f);
          p.hidden()[p.slots()[s] * pitch + i] = activate(p, gate, up);
        });
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
  for (int64_t item = begin; item < end; ++item) {
    const int64_t e = p.active()[item / blocks], first = item % blocks * kBlockPairs;
    const int64_t last = std::min(first + kBlockPairs, (p.width + 1) / 2);
    const T* bias = p.b2 ? static_cast<const T*>(p.b2) + e * p.b2_stride : nullptr;
    multiply_pairs<T>(
        p, p.w2, e, first, last, [](int64_t i) { return std::pair{2 * i, 2 * i + 1}; }, p.offsets()[e],
        p.offsets()[e + 1], [&](int64_t s) { return p.hidden() + p.slots()[s] * p.expert_width_pitch(); },
        [&](int64_t s, int64_t i, const float* out) {
          float* y = p.outputs() + p.slots()[s] * pitch;
          for (int64_t n = 2 * i; n < std::min(2 * i + 2, p.width); ++n)
            y[n] = out[n - 2 * i] + (bias ? to_float(bias[n]) : 0.0f);
        });
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

void require_valid_ids(const MoeMlpParams& p) {
  for (int64_t t = 0; t < p.tokens; ++t)
    for (int64_t j = 0; j < p.slots_per_token; ++j)
      if (const int32_t id = p.ids[t * p.ids_stride + j]; id < -1 || id >= p.experts)
        throw DeviceError(format("moe_mlp: ids[%lld, %lld] = %d; it must be -1 or below the %lld experts",
                                 static_cast<long long>(t), static_cast<long long>(j), id,
                                 static_cast<long long>(p.experts)));
}

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
  if (p.validate) require_valid_ids(p);
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

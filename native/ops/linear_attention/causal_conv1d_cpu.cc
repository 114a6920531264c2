#include <algorithm>

#include "backends/cpu/thread_pool.h"
#include "ops/linear_attention/causal_conv1d.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/causal_conv1d_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = CausalConv1dParams;
constexpr int64_t kChannels = Params::kChannelsPerItem;
constexpr int64_t kMaxTaps = Params::kMaxWidth;

// y = act(bias + sum_j w[j] window[j]) on padded(n) channels.
HWY_INLINE void convolve(const float* const* window, const float (*w)[kChannels], const float* bias, int64_t taps,
                         int64_t n, bool act, float* y) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(F32Tag()));
  for (int64_t c = 0; c < n; c += lanes) {
    F32 sum = load(bias + c);
    for (int64_t j = 0; j < taps; ++j) sum = hn::MulAdd(load(w[j] + c), load(window[j] + c), sum);
    store_f32(act ? silu(sum) : sum, y + c);
  }
}

// Channels [first, first + n) of one sequence.
template <class T>
void run_channels(const Params& p, const Sequence& seq, int64_t first, int64_t n) {
  const int64_t taps = p.width, past = taps - 1;
  auto x_row = [&](int64_t t) {
    return static_cast<const T*>(p.x.data) + seq.batch * p.x.batch + (seq.begin + t) * p.x.token + first;
  };
  auto y_row = [&](int64_t t) {
    return static_cast<T*>(p.y.data) + seq.batch * p.y.batch + (seq.begin + t) * p.y.token + first;
  };
  auto state = [&](const Params::States& s, int64_t row) {
    return static_cast<T*>(s.data) + row * s.row + first * s.channel;
  };
  if (seq.skipped) {
    for (int64_t t = 0; t < seq.length; ++t) std::fill(y_row(t), y_row(t) + n, T{});
    return;
  }

  alignas(64) float w[kMaxTaps][kChannels], bias[kChannels], y[kChannels];
  const T* weights = static_cast<const T*>(p.w) + first * p.w_stride;
  for (int64_t j = 0; j < taps; ++j)
    for (int64_t c = 0; c < padded(n); ++c) w[j][c] = c < n ? to_float(weights[c * p.w_stride + j]) : 0.0f;
  if (p.bias) {
    load_row(static_cast<const T*>(p.bias) + first, n, bias);
  } else {
    std::fill(bias, bias + kChannels, 0.0f);
  }

  // The state, oldest first; kept as stored, so that what stays in it stays bit for bit.
  T old[kMaxTaps - 1][kChannels];
  for (int64_t j = 0; j < past; ++j)
    for (int64_t c = 0; c < n; ++c)
      old[j][c] = p.state.data ? state(p.state, seq.read_row)[c * p.state.channel + j] : T{};
  // Input t of the sequence; the state stands at t = -past .. -1.
  auto input = [&](int64_t t) { return t < 0 ? old[t + past] : x_row(t); };

  // The last `taps` inputs in f32, input t in slot (t + taps) % taps.
  alignas(64) float ring[kMaxTaps][kChannels];
  auto slot = [&](int64_t t) { return ring[(t + taps) % taps]; };
  for (int64_t t = -past; t < 0; ++t) load_row(input(t), n, slot(t));
  for (int64_t t = 0; t < seq.length; ++t) {
    load_row(x_row(t), n, slot(t));
    const float* window[kMaxTaps] = {};
    for (int64_t j = 0; j < taps; ++j) window[j] = slot(t - past + j);
    convolve(window, w, bias, taps, n, p.silu, y);
    store_row(y, n, y_row(t));
  }

  if (!p.final.data) return;
  T* final = state(p.final, seq.write_row);
  for (int64_t j = 0; j < past; ++j) {
    const T* source = input(seq.length - past + j);
    for (int64_t c = 0; c < n; ++c) final[c * p.final.channel + j] = source[c];
  }
}

// Work items: (sequence, kChannels channels).
void causal_conv1d_items(const Params& p, int64_t begin, int64_t end) {
  const int64_t groups = p.channel_groups();
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item % groups * kChannels;
    with_float_type(p.dtype, [&](auto type) {
      run_channels<decltype(type)>(p, p.sequences.at(item / groups), first, std::min(kChannels, p.channels - first));
    });
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(causal_conv1d_items);

void causal_conv1d(const CausalConv1dParams& p, ThreadPool& pool) {
  require_valid("causal_conv1d", p.sequences);
  const int64_t items = p.sequences.count * p.channel_groups();
  if (items == 0) return;
  const int64_t tokens = p.sequences.cu_seqlens ? p.sequences.tokens / p.sequences.count : p.sequences.tokens;
  const int64_t grain = 32768 / (p.kChannelsPerItem * (tokens + p.width)) + 1;
  const auto run = HWY_DYNAMIC_DISPATCH(causal_conv1d_items);
  pool.parallel_for(items, grain, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif

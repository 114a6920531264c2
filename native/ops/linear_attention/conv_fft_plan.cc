#include <algorithm>

#include "abi/status.h"
#include "backends/backend.h"
#include "ops/linear_attention/conv_fft.h"

namespace culebra {
namespace {

// A transform of fewer points is no cheaper: its threads have nothing to do.
constexpr int kFewestLog2Points = 8;
// What a point costs beside the butterflies, in butterflies: loading, the product of spectra, storing; and a part of the filter more.
constexpr int64_t kPointCost = 6, kPartCost = 2;
constexpr int64_t kSectorBytes = 32;

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
struct Cut {
  ConvFftPlan plan;
  int64_t cost = 0;
};

Cut cut(int64_t tokens, int64_t taps, int log2_points, int64_t hop) {
  Cut c;
  c.plan.form = ConvFftPlan::Form::windows;
  c.plan.log2_points = log2_points;
  c.plan.hop = hop;
  c.plan.windows = ceil_divide(tokens, hop);
  c.plan.parts = std::max<int64_t>(1, taps > c.plan.points() - hop + 1 ? ceil_divide(taps, hop) : 1);
  c.cost = c.plan.windows * c.plan.points() * (2 * log2_points + kPointCost + (c.plan.parts - 1) * kPartCost);
  return c;
}

}  // namespace

ConvFftLimits conv_fft_limits(const DeviceCaps& caps, DType dtype) {
  if (caps.backend == CUL_BACKEND_CPU) return {kCpuLog2Points, 24, 0, 0};
  const bool half = dtype != DType::f32;
  ConvFftLimits limits{kFewestLog2Points, half ? 16 : 64, half ? 512 : 0, int64_t{64} << 20, static_cast<int64_t>(size_of(dtype))};
  // A window stands in shared memory: 8 bytes a point, one point in 16 more against bank conflicts, and the roots.
  while (limits.log2_points < 14 && (int64_t{17} << limits.log2_points) + 4096 <= caps.shared_bytes_per_block) ++limits.log2_points;
  return limits;
}

ConvFftPlan plan_conv_fft(int64_t batch, int64_t tokens, int64_t channels, int64_t taps, const ConvFftLimits& limits,
                          std::string* reason) {
  if (batch == 0 || tokens == 0 || channels == 0 || taps <= limits.direct_taps) {
    *reason = format("tap by tap: no more than %lld taps", ll(limits.direct_taps));
    return {};
  }
  if (taps <= limits.block_taps) {
    *reason = format("a Toeplitz matrix in blocks on tensor cores: no more than %lld taps", ll(limits.block_taps));
    ConvFftPlan plan;
    plan.form = ConvFftPlan::Form::blocks;
    return plan;
  }
  // One window of everything, or the cheapest of those that hold a filter and some more, or the filter in parts.
  Cut best;
  for (int log2_points = kFewestLog2Points; log2_points <= limits.log2_points; ++log2_points) {
    const int64_t points = int64_t{1} << log2_points, hop = points - taps + 1;
    if (hop < 1) continue;
    const Cut c = cut(tokens, taps, log2_points, hop);
    if (!best.cost || c.cost < best.cost) best = c;
    if (c.plan.windows == 1) break;
  }
  if (const Cut c = cut(tokens, taps, limits.log2_points, int64_t{1} << (limits.log2_points - 1));
      c.plan.parts > 1 && (!best.cost || c.cost < best.cost))
    best = c;
  ConvFftPlan plan = best.plan;
  *reason = plan.windows == 1 ? format("one window of %lld points", ll(plan.points()))
                              : format("%lld windows of %lld points, each %lld tokens after the one before", ll(plan.windows),
                                       ll(plan.points()), ll(plan.hop));
  if (plan.parts > 1) *reason += format("; the filter in %lld parts, since no window holds it", ll(plan.parts));
  if (limits.scratch_bytes == 0) return plan;

  const int64_t pairs = ceil_divide(channels, 2), point_bytes = 2 * static_cast<int64_t>(sizeof(float));
  // Few channels fill sectors without a copy.
  plan.copies = channels * limits.element_bytes > kSectorBytes;
  const int64_t filter_bytes = plan.parts * plan.points() * point_bytes;
  const int64_t row_bytes = (plan.parts > 1 ? plan.windows * plan.points() * point_bytes : 0) +
                            (plan.copies ? 2 * 2 * tokens * limits.element_bytes : 0);
  plan.pairs_at_once = std::clamp<int64_t>(limits.scratch_bytes / (filter_bytes + row_bytes), 1, pairs);
  plan.rows_at_once = batch;
  if (row_bytes > 0)
    plan.rows_at_once = std::clamp<int64_t>((limits.scratch_bytes / plan.pairs_at_once - filter_bytes) / row_bytes, 1, batch);
  *reason += format("; %lld pairs of channels and %lld rows at once%s", ll(plan.pairs_at_once), ll(plan.rows_at_once),
                    plan.copies ? ", copied so that a pair's tokens are neighbours" : "");
  return plan;
}

}  // namespace culebra

// A call of moe_mlp on a device, and what it must give, in double.
#pragma once
#include <algorithm>

#include "moe_harness.h"

namespace culebra::testing {

struct MlpCase {
  int32_t storage, act;
  cul_dtype type;
  int64_t tokens, k, experts, width, inner;
  bool biases = false, zeros = false;
  int32_t group = 32;
  int64_t pad = 8;
  int32_t one_expert = -2;  // all ids, where it is not -2
  bool matrices_differ = false;  // int4: scales of w13 and w2 in the two half types; w2 without zeros
};

class MlpProblem {
 public:
  MlpProblem(Context& context, const MlpCase& c, uint32_t seed)
      : context(context), c(c), rng(seed), x(context, c.type, {c.tokens, c.width}, c.pad),
        w13(context, c.storage, c.type, c.experts, 2 * c.inner, c.width, c.group, c.zeros, c.pad, rng),
        w2(context, c.storage, c.type, c.experts, c.width, c.inner, c.group, c.zeros && !c.matrices_differ, c.pad, rng, c.matrices_differ),
        b13(context, c.type, {c.experts, 2 * c.inner}, 1), b2(context, c.type, {c.experts, c.width}, 3),
        weights(context, kF32, {c.tokens, c.k}, 1), ids(context, kI32, {c.tokens, c.k}, 1), y(context, c.type, {c.tokens, c.width}, c.pad) {
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform;
    x.fill([&](auto, auto) { return normal(rng); });
    b13.fill([&](auto, auto) { return normal(rng); });
    b2.fill([&](auto, auto) { return normal(rng); });
    weights.fill([&](auto, auto) { return uniform(rng); });
    draw_ids();
  }

  // -1 and ids beyond the experts are skipped; an expert may occur twice in a row.
  void draw_ids() {
    ids.fill([&](auto, auto) {
      return c.one_expert != -2 ? c.one_expert : static_cast<double>(rng() % static_cast<uint64_t>(c.experts + 2)) - 1;
    });
  }

  cul_moe_mlp_args args() const {
    cul_moe_mlp_args args{};
    args.x = &x.tensor, args.weights = &weights.tensor, args.ids = &ids.tensor, args.y = &y.tensor;
    args.w13 = w13.data(), args.w13_scales = w13.scales(), args.w13_zeros = w13.zeros();
    args.w2 = w2.data(), args.w2_scales = w2.scales(), args.w2_zeros = w2.zeros();
    if (c.biases) args.b13 = &b13.tensor, args.b2 = &b2.tensor;
    args.experts = c.storage, args.group = c.group, args.act = c.act, args.alpha = 1.7f, args.limit = 2;
    return args;
  }
  cul_status run(uint32_t flags = 0) {
    y.fill([](auto, auto) { return std::nan(""); });
    cul_moe_mlp_args call = args();
    const cul_status status = context.run(cul_moe_mlp, call, flags);
    if (status == CUL_OK) y.download();
    return status;
  }

  double activate(double gate, double up) const {
    if (c.act == CUL_MOE_ACT_GELU) return 0.5 * gate * (1 + std::erf(gate / std::sqrt(2.0))) * up;
    if (c.act == CUL_MOE_ACT_SILU) return gate / (1 + std::exp(-gate)) * up;
    gate = std::min(gate, 2.0);
    return (std::clamp(up, -2.0, 2.0) + 1) * gate / (1 + std::exp(-static_cast<double>(1.7f) * gate));
  }
  void expect_reference() const {
    double difference = 0, norm = 0;
    std::vector<double> hidden(static_cast<size_t>(c.inner)), row(static_cast<size_t>(c.width));
    for (int64_t t = 0; t < c.tokens; ++t) {
      std::fill(row.begin(), row.end(), 0.0);
      for (int64_t j = 0; j < c.k; ++j) {
        const auto e = static_cast<int64_t>(ids.get(t, j));
        if (e < 0 || e >= c.experts) continue;
        for (int64_t i = 0; i < c.inner; ++i) {
          double gate = c.biases ? b13.get(e, i) : 0, up = c.biases ? b13.get(e, c.inner + i) : 0;
          for (int64_t d = 0; d < c.width; ++d) gate += x.get(t, d) * w13.number(e, i, d), up += x.get(t, d) * w13.number(e, c.inner + i, d);
          hidden[static_cast<size_t>(i)] = activate(gate, up);
        }
        for (int64_t d = 0; d < c.width; ++d) {
          double sum = c.biases ? b2.get(e, d) : 0;
          for (int64_t i = 0; i < c.inner; ++i) sum += hidden[static_cast<size_t>(i)] * w2.number(e, d, i);
          row[static_cast<size_t>(d)] += weights.get(t, j) * sum;
        }
      }
      for (int64_t d = 0; d < c.width; ++d) {
        const double want = row[static_cast<size_t>(d)], got = y.get(t, d);
        difference += (got - want) * (got - want);
        norm += want * want;
      }
    }
    // f8: activations may be e4m3, too.
    const bool quantized = context.plan.find("e4m3 activations") != std::string::npos;
    EXPECT_LE(std::sqrt(difference / std::max(norm, 1e-300)), quantized ? 0.06 : 1.5 * tolerance(c.type)) << context.plan;
    EXPECT_TRUE(y.guards_untouched());
  }

  Context& context;
  MlpCase c;
  std::mt19937 rng;
  DeviceTensor x;
  ExpertTensors w13, w2;
  DeviceTensor b13, b2, weights, ids, y;
};

inline void check(DeviceChoice device, const MlpCase& c, uint32_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  Context context(device);
  MlpProblem problem(context, c, seed);
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  problem.expect_reference();
  const auto once = problem.y.image;
  ASSERT_EQ(problem.run(), CUL_OK);
  EXPECT_EQ(problem.y.image, once) << "two runs differ";
}

}  // namespace culebra::testing

// moe_mlp through the C ABI on every backend that runs here, with as many tokens as its plan for many wants, against sums in double.
#include <algorithm>
#include <functional>

#include "moe_harness.h"

namespace culebra {
namespace {

using namespace culebra::testing;

struct MlpCase {
  int32_t storage, act;
  cul_dtype type;
  int64_t tokens, k, experts, width, inner;
  bool biases = false, zeros = false;
  int32_t group = 32;
  int64_t pad = 8;
  int32_t one_expert = -2;  // all ids, where it is not -2
};

class MlpProblem {
 public:
  MlpProblem(Context& context, const MlpCase& c, uint32_t seed)
      : context(context), c(c), rng(seed), x(context, c.type, {c.tokens, c.width}, c.pad),
        w13(context, c.storage, c.type, c.experts, 2 * c.inner, c.width, c.group, c.zeros, c.pad, rng),
        w2(context, c.storage, c.type, c.experts, c.width, c.inner, c.group, c.zeros, c.pad, rng),
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
    EXPECT_LE(std::sqrt(difference / std::max(norm, 1e-300)), 1.5 * tolerance(c.type)) << context.plan;
    EXPECT_TRUE(y.guards_untouched());
  }

  Context& context;
  MlpCase c;
  std::mt19937 rng;
  DeviceTensor x;
  ExpertTensors w13, w2;
  DeviceTensor b13, b2, weights, ids, y;
};

void check(DeviceChoice device, const MlpCase& c, uint32_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  Context context(device);
  MlpProblem problem(context, c, seed);
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  problem.expect_reference();
  const auto once = problem.y.image;
  ASSERT_EQ(problem.run(), CUL_OK);
  EXPECT_EQ(problem.y.image, once) << "two runs differ";
}

class MoeMlpManyTest : public ::testing::TestWithParam<DeviceChoice> {};

TEST_P(MoeMlpManyTest, everyStorageAndActivation) {
  check(GetParam(), {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 40, 2, 5, 72, 40}, 1);
  check(GetParam(), {CUL_EXPERTS_HALF, CUL_MOE_ACT_GELU, kF16, 33, 3, 7, 64, 64, true, false, 32, 3}, 2);
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, kBf16, 20, 3, 5, 96, 64, false, true, 32, 0}, 3);
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SWIGLU_OAI, kF16, 35, 2, 3, 64, 48, true, false, -1, 16}, 4);
  check(GetParam(), {CUL_EXPERTS_F8, CUL_MOE_ACT_SILU, kBf16, 20, 2, 4, 144, 72, false, false, -1, 16}, 5);
  check(GetParam(), {CUL_EXPERTS_F8, CUL_MOE_ACT_SWIGLU_OAI, kF16, 40, 2, 3, 64, 136, true, false, -1, 0}, 6);
}

TEST_P(MoeMlpManyTest, spreadOfTheSlots) {
  const MlpCase one{CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 30, 3, 9, 64, 32, false, false, -1, 0, 6};  // all to one expert, thrice a token
  check(GetParam(), one, 7);
  MlpCase every = one;  // k = E
  every.one_expert = -2, every.k = every.experts, every.tokens = 7;
  check(GetParam(), every, 8);
  MlpCase nobody = one;
  nobody.one_expert = -1;
  check(GetParam(), nobody, 9);
}

TEST_P(MoeMlpManyTest, emptyExtents) {
  const MlpCase c{CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 5, 2, 3, 16, 16, true};
  for (int64_t MlpCase::* extent : {&MlpCase::tokens, &MlpCase::k, &MlpCase::inner, &MlpCase::width}) {
    MlpCase empty = c;
    empty.*extent = 0;
    check(GetParam(), empty, 10);
  }
}

// A smaller batch, other routes and the first batch again in the workspace of the large one: nothing of an earlier call is left in it.
TEST_P(MoeMlpManyTest, workspaceIsReused) {
  Context context(GetParam());
  MlpProblem large(context, {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kF16, 50, 2, 6, 32, 32}, 11),
      small(context, {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kF16, 6, 2, 6, 32, 32}, 12);
  cul_moe_mlp_args args = large.args();
  args.call = {sizeof args, CUL_OP_PLAN_ONLY, nullptr, 0};
  ASSERT_EQ(cul_moe_mlp(context.stream, &args), CUL_OK) << cul_last_error();
  const uint64_t bytes = cul_last_workspace_bytes();
  void* workspace = nullptr;
  ASSERT_EQ(cul_memory_alloc(context.device, bytes, &workspace), CUL_OK);
  for (MlpProblem* problem : {&large, &small, &large}) {
    problem->draw_ids();
    cul_moe_mlp_args call = problem->args();
    call.call = {sizeof call, 0, workspace, bytes};
    ASSERT_EQ(cul_moe_mlp(context.stream, &call), CUL_OK) << cul_last_error();
    problem->y.download();
    problem->expect_reference();
  }
  EXPECT_EQ(cul_memory_free(context.device, workspace), CUL_OK);
}

// A token has the same bits alone and among others.
TEST_P(MoeMlpManyTest, batchInvariance) {
  Context context(GetParam());
  MlpProblem all(context, {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, kBf16, 40, 2, 3, 64, 64, true, true}, 13);
  ASSERT_EQ(all.run(CUL_OP_BATCH_INVARIANT), CUL_OK) << cul_last_error();
  const int64_t token = 29;
  DeviceTensor x(context, kBf16, {1, 64}), y(context, kBf16, {1, 64}), weights(context, kF32, {1, 2}), ids(context, kI32, {1, 2});
  x.fill([&](auto, int64_t d) { return all.x.get(token, d); });
  weights.fill([&](auto, int64_t j) { return all.weights.get(token, j); });
  ids.fill([&](auto, int64_t j) { return all.ids.get(token, j); });
  cul_moe_mlp_args args = all.args();
  args.x = &x.tensor, args.y = &y.tensor, args.weights = &weights.tensor, args.ids = &ids.tensor;
  ASSERT_EQ(context.run(cul_moe_mlp, args, CUL_OP_BATCH_INVARIANT), CUL_OK) << cul_last_error();
  y.download();
  for (int64_t d = 0; d < 64; ++d) EXPECT_EQ(y.get(0, d), all.y.get(token, d)) << d;
}

TEST_P(MoeMlpManyTest, badIdsAreReported) {
  Context context(GetParam());
  MlpProblem problem(context, {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 20, 2, 3, 32, 32, false, false, -1, 0, 1}, 14);
  problem.ids.set(3, 0, -1);
  problem.ids.upload();
  ASSERT_EQ(problem.run(CUL_OP_VALIDATE), CUL_OK) << cul_last_error();
  problem.ids.set(17, 1, 3);
  problem.ids.upload();
  EXPECT_EQ(problem.run(CUL_OP_VALIDATE), CUL_DEVICE_ERROR);
  EXPECT_NE(std::string(cul_last_error()).find("moe_mlp: ids[17, 1] = 3"), std::string::npos) << cul_last_error();
}

INSTANTIATE_TEST_SUITE_P(Devices, MoeMlpManyTest, ::testing::ValuesIn(devices_here()),
                         [](const auto& info) { return device_test_name(info); });

}  // namespace
}  // namespace culebra

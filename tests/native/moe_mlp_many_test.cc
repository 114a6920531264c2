// moe_mlp through the C ABI on every backend that runs here, with as many tokens as its plan for many wants, against sums in double.
#include "moe_mlp_harness.h"

namespace culebra {
namespace {

using namespace culebra::testing;

class MoeMlpManyTest : public ::testing::TestWithParam<DeviceChoice> {};

TEST_P(MoeMlpManyTest, everyStorageAndActivation) {
  check(GetParam(), {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 40, 2, 5, 72, 40}, 1);
  check(GetParam(), {CUL_EXPERTS_HALF, CUL_MOE_ACT_GELU, kF16, 33, 3, 7, 64, 64, true, false, 32, 3}, 2);
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, kBf16, 20, 3, 5, 96, 64, false, true, 32, 0}, 3);
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SWIGLU_OAI, kF16, 35, 2, 3, 64, 48, true, false, -1, 16}, 4);
  check(GetParam(), {CUL_EXPERTS_F8, CUL_MOE_ACT_SILU, kBf16, 20, 2, 4, 144, 72, false, false, -1, 16}, 5);
  check(GetParam(), {CUL_EXPERTS_F8, CUL_MOE_ACT_SWIGLU_OAI, kF16, 40, 2, 3, 64, 136, true, false, -1, 0}, 6);
}

TEST_P(MoeMlpManyTest, f8ExpertsWithManyRows) {
  check(GetParam(), {CUL_EXPERTS_F8, CUL_MOE_ACT_SILU, kBf16, 70, 2, 2, 144, 64, true, false, -1, 16}, 15);
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

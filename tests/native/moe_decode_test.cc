// moe_mlp for few tokens, in one launch: every storage, width and stride against sums in double, the routing inside, reruns and graphs.
#include "abi/call.h"
#include "moe_mlp_harness.h"
#include "ops/moe/moe_mlp.h"

namespace culebra {
namespace {

using namespace culebra::testing;

class MoeDecodeTest : public ::testing::TestWithParam<DeviceChoice> {
 protected:
  static bool one_kernel(const Context& context) { return context.plan.find("run at once") != std::string::npos; }
  static bool has_kernels() { return GetParam().backend != CUL_BACKEND_CPU; }
};

// No dimension is a multiple of a step, rows begin at multiples of 16 bytes, or at odd places.
TEST_P(MoeDecodeTest, everyStorageAndActivation) {
  check(GetParam(), {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 1, 8, 16, 72, 40}, 1);
  check(GetParam(), {CUL_EXPERTS_HALF, CUL_MOE_ACT_GELU, kF16, 5, 3, 7, 300, 50, true, false, 32, 3}, 2);
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, kBf16, 3, 3, 5, 352, 96, false, true, 32, 0}, 3);
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SWIGLU_OAI, kF16, 8, 2, 3, 130, 34, true, false, -1, 1}, 4);
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_GELU, kF16, 2, 4, 9, 192, 160, true, true, 64, 32}, 5);
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, kBf16, 7, 2, 6, 320, 256, false, true, 128, 16}, 6);
  check(GetParam(), {CUL_EXPERTS_F8, CUL_MOE_ACT_SILU, kBf16, 4, 2, 4, 144, 72, false, false, -1, 16}, 7);
  check(GetParam(), {CUL_EXPERTS_F8, CUL_MOE_ACT_SWIGLU_OAI, kF16, 6, 2, 3, 200, 136, true, false, -1, 3}, 8);
}

TEST_P(MoeDecodeTest, matricesOfTwoCheckpoints) {
  for (const int64_t tokens : {1, 9})  // 9: not this kernel
    for (const cul_dtype type : {kF16, kBf16})
      check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, type, tokens, 2, 5, 96, 64, false, true, 32, 0, -2, true}, 18);
}

// More steps than the ring has stages; more experts in a block's share than hidden rows fit beside one another; idle blocks.
TEST_P(MoeDecodeTest, longRowsAndManyExperts) {
  check(GetParam(), {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, kF16, 1, 2, 3, 6200, 32, false, false, 128, 16}, 9);
  check(GetParam(), {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 8, 6, 40, 24, 700, true}, 10);
  check(GetParam(), {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 1, 1, 1, 16, 8}, 11);
}

TEST_P(MoeDecodeTest, spreadOfTheSlots) {
  const MlpCase one{CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 8, 3, 9, 64, 32, false, false, -1, 0, 6};  // all to one expert, thrice a token
  check(GetParam(), one, 12);
  MlpCase every = one;  // k = E
  every.one_expert = -2, every.k = every.experts, every.tokens = 4;
  check(GetParam(), every, 13);
  MlpCase nobody = one;
  nobody.one_expert = -1;
  check(GetParam(), nobody, 14);
}

TEST_P(MoeDecodeTest, aTokensBitsAreItsOwn) {
  const uint32_t flags = has_kernels() ? 0 : CUL_OP_BATCH_INVARIANT;  // the kernel for few tokens never depends on the batch
  Context context(GetParam());
  MlpProblem all(context, {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, kBf16, 8, 2, 5, 160, 64, true, true}, 15);
  ASSERT_EQ(all.run(flags), CUL_OK) << cul_last_error();
  ASSERT_EQ(one_kernel(context), has_kernels()) << context.plan;
  DeviceTensor x(context, kBf16, {1, 160}), y(context, kBf16, {1, 160}), weights(context, kF32, {1, 2}), ids(context, kI32, {1, 2});
  x.fill([&](auto, int64_t d) { return all.x.get(5, d); });
  weights.fill([&](auto, int64_t j) { return all.weights.get(5, j); });
  ids.fill([&](auto, int64_t j) { return all.ids.get(5, j); });
  cul_moe_mlp_args args = all.args();
  args.x = &x.tensor, args.y = &y.tensor, args.weights = &weights.tensor, args.ids = &ids.tensor;
  ASSERT_EQ(context.run(cul_moe_mlp, args, flags), CUL_OK) << cul_last_error();
  y.download();
  for (int64_t d = 0; d < 160; ++d) EXPECT_EQ(y.get(0, d), all.y.get(5, d)) << d;
}

// With logits: the same bits as moe_route and moe_mlp one after the other, for few tokens and for many.
TEST_P(MoeDecodeTest, logitsAreRouted) {
  for (const int64_t tokens : {int64_t{3}, int64_t{11}}) {
    Context context(GetParam());
    MlpProblem problem(context, {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, tokens, 4, 33, 64, 48}, 16);  // one of the 33 experts is shared
    DeviceTensor logits(context, kF16, {tokens, 32}, 5), bias(context, kF32, {32});
    std::normal_distribution<double> normal;
    logits.fill([&](auto, auto) { return normal(problem.rng); });
    bias.fill([&](auto, auto) { return normal(problem.rng) / 4; });
    cul_moe_route_args route{};
    route.logits = &logits.tensor, route.bias = &bias.tensor, route.weights = &problem.weights.tensor, route.ids = &problem.ids.tensor;
    route.k = 3, route.score = CUL_SCORE_SIGMOID, route.n_group = 4, route.topk_group = 2, route.renormalize = 1, route.n_shared = 1,
    route.scale = 2.5f;
    ASSERT_EQ(context.run(cul_moe_route, route), CUL_OK) << cul_last_error();
    problem.weights.download();
    problem.ids.download();
    ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
    problem.expect_reference();
    const auto apart = problem.y.image;
    problem.y.fill([](auto, auto) { return std::nan(""); });
    cul_moe_mlp_args args = problem.args();
    args.weights = args.ids = nullptr;
    args.logits = &logits.tensor, args.route_bias = &bias.tensor;
    args.k = 3, args.score = CUL_SCORE_SIGMOID, args.n_group = 4, args.topk_group = 2, args.renormalize = 1, args.n_shared = 1, args.scale = 2.5f;
    ASSERT_EQ(context.run(cul_moe_mlp, args), CUL_OK) << cul_last_error();
    EXPECT_EQ(one_kernel(context), has_kernels() && tokens <= 8) << context.plan;
    problem.y.download();
    EXPECT_EQ(problem.y.image, apart);
  }
}

TEST_P(MoeDecodeTest, logitsAndIdsExcludeOneAnother) {
  Context context(GetParam());
  MlpProblem problem(context, {CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, kBf16, 3, 2, 8, 32, 16}, 17);
  DeviceTensor logits(context, kF32, {3, 8}), narrow(context, kF32, {3, 7});
  const auto status = [&](auto&& change) {
    cul_moe_mlp_args args = problem.args();
    args.weights = args.ids = nullptr, args.logits = &logits.tensor;
    args.k = 2, args.n_group = args.topk_group = 1, args.scale = 1;
    change(args);
    args.call = {sizeof args, CUL_OP_PLAN_ONLY, nullptr, 0};
    return cul_moe_mlp(context.stream, &args);
  };
  EXPECT_EQ(status([](auto&) {}), CUL_OK) << cul_last_error();
  EXPECT_EQ(status([&](auto& a) { a.ids = &problem.ids.tensor; }), CUL_UNSUPPORTED);
  EXPECT_NE(std::string(cul_last_error()).find("ids"), std::string::npos);
  EXPECT_EQ(status([&](auto& a) { a.weights = &problem.weights.tensor; }), CUL_UNSUPPORTED);
  EXPECT_EQ(status([&](auto& a) { a.logits = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(status([&](auto& a) { a.logits = nullptr, a.route_bias = &logits.tensor; }), CUL_NULL_POINTER);
  EXPECT_EQ(status([&](auto& a) { a.logits = &narrow.tensor; }), CUL_SHAPE);
  EXPECT_EQ(status([&](auto& a) { a.logits = &narrow.tensor, a.n_shared = 1; }), CUL_OK) << cul_last_error();
  EXPECT_EQ(status([&](auto& a) { a.k = 9; }), CUL_RANGE);
  EXPECT_EQ(status([&](auto& a) { a.n_group = 3; }), CUL_RANGE);
}

// A graph keeps its arguments, not what they point to: each replay finds other routes in the same workspace, as it was left.
TEST_P(MoeDecodeTest, replaysWithOtherRoutesAndReruns) {
  Context context(GetParam());
  MlpProblem problem(context, {CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, kF16, 2, 2, 6, 128, 32, true, false}, 18);
  cul_moe_mlp_args args = problem.args();
  args.call = {sizeof args, CUL_OP_PLAN_ONLY, nullptr, 0};
  ASSERT_EQ(cul_moe_mlp(context.stream, &args), CUL_OK) << cul_last_error();
  const uint64_t bytes = cul_last_workspace_bytes();
  void* workspace = nullptr;
  ASSERT_EQ(cul_memory_alloc(context.device, bytes, &workspace), CUL_OK);
  args.call = {sizeof args, 0, workspace, bytes};
  ASSERT_EQ(cul_graph_begin_capture(context.stream), CUL_OK);
  ASSERT_EQ(cul_moe_mlp(context.stream, &args), CUL_OK) << cul_last_error();
  cul_graph* graph = nullptr;
  ASSERT_EQ(cul_graph_end_capture(context.stream, &graph), CUL_OK);
  uint64_t nodes = 0;
  ASSERT_EQ(cul_graph_node_count(graph, &nodes), CUL_OK);
  if (has_kernels()) {
    EXPECT_EQ(nodes, 1u);
  }
  std::vector<std::byte> first;
  for (int run = 0; run < 20; ++run) {
    if (run < 3) problem.draw_ids();
    ASSERT_EQ(cul_graph_launch(graph, context.stream), CUL_OK) << cul_last_error();
    problem.y.download();
    if (run < 3) problem.expect_reference();
    if (run == 2) first = problem.y.image;
    if (run > 2) {
      EXPECT_EQ(problem.y.image, first) << "rerun " << run;
    }
  }
  EXPECT_EQ(cul_graph_destroy(graph), CUL_OK);
  EXPECT_EQ(cul_memory_free(context.device, workspace), CUL_OK);
}

INSTANTIATE_TEST_SUITE_P(Devices, MoeDecodeTest, ::testing::ValuesIn(devices_here()),
                         [](const auto& info) { return device_test_name(info); });

// ---------------------------------------------------------------------------------------------- the plan

DeviceCaps device(int multiprocessors, int shared_kib) {
  DeviceCaps caps;
  caps.backend = CUL_BACKEND_CUDA;
  caps.multiprocessors = multiprocessors;
  caps.shared_bytes_per_block = shared_kib << 10;
  return caps;
}

MoeMlpOperands deepseek(int64_t tokens, int32_t storage) {
  MoeMlpOperands p;
  p.tokens = tokens, p.slots_per_token = 8, p.width = 7168, p.expert_width = 2048, p.experts = 256;
  p.w13.storage = p.w2.storage = storage;
  p.w13.group = p.w2.group = 128, p.group_bits = 7;
  return p;
}

TEST(MoeDecodePlan, fillsTheDeviceAndFitsIt) {
  std::string reason;
  for (const int32_t storage : {CUL_EXPERTS_HALF, CUL_EXPERTS_F8, CUL_EXPERTS_INT4})
    for (const int64_t tokens : {1, 8}) {
      const MoeDecodePlan plan = plan_moe_decode(deepseek(tokens, storage), device(132, 227), &reason);
      ASSERT_TRUE(plan.suits) << reason;
      EXPECT_EQ(plan.tokens, tokens);
      EXPECT_EQ(plan.blocks, 132);
      EXPECT_LE(plan.shared_bytes, 227 << 10);
      EXPECT_GE(plan.hidden_experts, 1);
    }
  EXPECT_NE(reason.find("132 blocks"), std::string::npos) << reason;
}

TEST(MoeDecodePlan, leavesTheRestToTheOther) {
  std::string reason;
  EXPECT_FALSE(plan_moe_decode(deepseek(9, CUL_EXPERTS_INT4), device(132, 227), &reason).suits);
  EXPECT_EQ(reason, "many tokens");
  MoeMlpOperands invariant = deepseek(1, CUL_EXPERTS_INT4);
  invariant.batch_invariant = true;
  EXPECT_FALSE(plan_moe_decode(invariant, device(132, 227), &reason).suits);
  // Less shared memory: few tokens a launch, which is worth it while they have few experts in common.
  MoeMlpOperands eight = deepseek(8, CUL_EXPERTS_INT4);
  const MoeDecodePlan plan = plan_moe_decode(eight, device(108, 163), &reason);
  EXPECT_TRUE(plan.suits) << reason;
  EXPECT_LT(plan.tokens, 8);
  eight.experts = 8;
  EXPECT_FALSE(plan_moe_decode(eight, device(108, 163), &reason).suits);
  MoeMlpOperands wide = deepseek(1, CUL_EXPERTS_HALF);
  wide.width = 100000;
  EXPECT_FALSE(plan_moe_decode(wide, device(132, 227), &reason).suits);
  EXPECT_NE(reason.find("100000"), std::string::npos) << reason;
}

}  // namespace
}  // namespace culebra

// moe_grouped_gemm through the C ABI on every backend that runs here, against sums in double over the exact operands: every storage,
// tile, activation and stride, experts without rows, all rows to one expert, gathered rows.
#include <algorithm>

#include "abi/call.h"
#include "backends/backend.h"
#include "culebra/moe.h"
#include "moe_harness.h"
#include "ops/moe/grouped_gemm.h"

namespace culebra {
namespace {

using namespace culebra::testing;

struct GroupedCase {
  int32_t storage;
  cul_dtype type;  // of a
  std::vector<int64_t> counts;  // rows of each expert
  int64_t n, k;
  int32_t group = -1;
  bool zeros = false, gated = false, gather = false;
  int64_t pad = 0, idle = 0;  // rows beyond the last expert's
  cul_dtype out = kBf16;
  uint32_t flags = 0;
};

class GroupedProblem {
 public:
  GroupedProblem(Context& context, const GroupedCase& c, uint32_t seed)
      : context(context), c(c), rng(seed), rows(std::accumulate(c.counts.begin(), c.counts.end(), c.idle)),
        a_rows(c.gather ? rows / 2 + 1 : rows), experts(static_cast<int64_t>(c.counts.size())),
        a(context, c.type, {a_rows, c.k}, c.pad), a_scale(context, kF32, {a_rows, (c.k + 127) / 128}, c.pad ? 1 : 0),
        b(context, c.storage, c.type, experts, c.n, c.k, c.group, c.zeros, c.pad, rng), offsets(context, kI64, {experts + 1}),
        gather(context, kI32, {rows}), out(context, c.out, {rows, c.gated ? c.n / 2 : c.n}, c.pad) {
    std::normal_distribution<double> normal;
    a.fill([&](auto, auto) { return normal(rng); });
    a_scale.fill([&](auto, auto) { return std::exp(normal(rng)); });
    int64_t sum = 0;
    offsets.fill([&](auto, int64_t e) { return static_cast<double>(e == 0 ? 0 : sum += c.counts[static_cast<size_t>(e - 1)]); });
    gather.fill([&](auto, int64_t r) { return r % 7 == 3 ? -1.0 : static_cast<double>(rng() % static_cast<uint64_t>(a_rows)); });
  }

  cul_moe_grouped_gemm_args args() const {
    cul_moe_grouped_gemm_args args{};
    args.a = &a.tensor, args.b = b.data(), args.b_scales = b.scales(), args.b_zeros = b.zeros();
    args.a_scale = c.storage == CUL_EXPERTS_F8 ? &a_scale.tensor : nullptr;
    args.offsets = &offsets.tensor, args.gather = c.gather ? &gather.tensor : nullptr, args.c = &out.tensor;
    args.experts = c.storage, args.group = c.group, args.act = c.gated ? CUL_EPILOGUE_SILU_MUL : CUL_EPILOGUE_NONE;
    return args;
  }

  // Runs on a poisoned c.
  cul_status run() {
    out.fill([](auto, auto) { return 77.0; });
    cul_moe_grouped_gemm_args call = args();
    const cul_status status = context.run(cul_moe_grouped_gemm, call, c.flags);
    if (status == CUL_OK) out.download();
    return status;
  }

  void expect_reference() const {
    double difference = 0, norm = 0;
    int64_t row = 0;
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t i = 0; i < c.counts[static_cast<size_t>(e)]; ++i, ++row) {
        const auto from = static_cast<int64_t>(c.gather ? gather.get(0, row) : static_cast<double>(row));
        const auto sum = [&](int64_t n) {
          double s = 0;
          for (int64_t k = 0; from >= 0 && k < c.k; ++k)
            s += a.get(from, k) * (c.storage == CUL_EXPERTS_F8 ? a_scale.get(from, k / 128) : 1) * b.number(e, n, k);
          return s;
        };
        for (int64_t n = 0; n < out.columns(); ++n) {
          const double x = sum(n), want = c.gated ? x / (1 + std::exp(-x)) * sum(n + out.columns()) : x, got = out.get(row, n);
          difference += (got - want) * (got - want);
          norm += want * want;
        }
      }
    EXPECT_LE(std::sqrt(difference / std::max(norm, 1e-300)), tolerance(c.out)) << context.plan;
    for (; row < rows; ++row)
      for (int64_t n = 0; n < out.columns(); ++n) EXPECT_EQ(out.get(row, n), 77) << "row " << row << " is nobody's";
    EXPECT_TRUE(out.guards_untouched());
  }

  Context& context;
  GroupedCase c;
  std::mt19937 rng;
  int64_t rows, a_rows, experts;
  DeviceTensor a, a_scale;
  ExpertTensors b;
  DeviceTensor offsets, gather, out;
};

void check(DeviceChoice device, const GroupedCase& c, uint32_t seed) {
  SCOPED_TRACE("storage " + std::to_string(c.storage) + ", n " + std::to_string(c.n) + ", k " + std::to_string(c.k) + ", seed " + std::to_string(seed));
  Context context(device);
  GroupedProblem problem(context, c, seed);
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  problem.expect_reference();
  const auto once = problem.out.image;
  ASSERT_EQ(problem.run(), CUL_OK);
  EXPECT_EQ(problem.out.image, once) << "two runs differ";
}

class GroupedGemmTest : public ::testing::TestWithParam<DeviceChoice> {};

TEST_P(GroupedGemmTest, halfExperts) {
  check(GetParam(), {CUL_EXPERTS_HALF, kBf16, {3, 0, 17, 1, 0}, 72, 64, -1, false, false, false, 8, 3, kF32}, 1);
  check(GetParam(), {CUL_EXPERTS_HALF, kF16, {0, 5, 20}, 136, 100, -1, false, false, true, 3, 0, kF16}, 2);  // rows at odd places
  check(GetParam(), {CUL_EXPERTS_HALF, kBf16, {40, 2}, 70, 72, -1, false, true, true, 8, 2, kBf16}, 3);      // halves of 35 columns
}

TEST_P(GroupedGemmTest, int4Experts) {
  check(GetParam(), {CUL_EXPERTS_INT4, kF16, {3, 0, 17, 1, 0}, 72, 192, 64, true, false, false, 8, 3, kF16}, 4);
  check(GetParam(), {CUL_EXPERTS_INT4, kBf16, {0, 30, 20}, 136, 160, 32, true, true, true, 16, 0, kBf16}, 5);
  check(GetParam(), {CUL_EXPERTS_INT4, kBf16, {9, 1}, 66, 70, -1, false, false, false, 3, 0, kF32}, 6);
  check(GetParam(), {CUL_EXPERTS_INT4, kF16, {2, 70}, 64, 288, 128, false, true, false, 0, 1, kF16}, 7);
}

TEST_P(GroupedGemmTest, f8Experts) {
  check(GetParam(), {CUL_EXPERTS_F8, kF8, {3, 0, 17, 1, 0}, 200, 256, -1, false, false, false, 16, 3, kBf16}, 8);
  check(GetParam(), {CUL_EXPERTS_F8, kF8, {25, 40}, 272, 200, -1, false, true, true, 3, 0, kF16}, 9);  // halves of 136 columns
  check(GetParam(), {CUL_EXPERTS_F8, kF8, {30, 0, 45}, 256, 336, -1, false, true, true, 16, 2, kBf16}, 23);
  check(GetParam(), {CUL_EXPERTS_F8, kF8, {5, 9, 2}, 128, 144, -1, false, true, false, 16, 0, kF32}, 24);
}

TEST_P(GroupedGemmTest, oneExpertHasAllRows) {
  std::vector<int64_t> counts(37, 0);
  counts[29] = 150;
  check(GetParam(), {CUL_EXPERTS_HALF, kBf16, counts, 64, 64, -1, false, false, false, 0, 0, kBf16}, 10);
  check(GetParam(), {CUL_EXPERTS_INT4, kBf16, counts, 64, 64, 32, false, false, true, 0, 0, kBf16}, 11);
}

// Tiles of 256 rows, and what is left of them: more than half, half, a quarter, a row.
TEST_P(GroupedGemmTest, manyRowsAnExpert) {
  check(GetParam(), {CUL_EXPERTS_HALF, kBf16, {256 + 130, 128 + 3, 60, 257}, 64, 64, -1, false, true, false, 0, 1, kF16}, 25);
  check(GetParam(), {CUL_EXPERTS_F8, kF8, {256 + 100, 140, 200}, 64, 128, -1, false, false, true, 0, 1, kF16}, 26);
}

TEST_P(GroupedGemmTest, rowsThatRepeatOrDescend) {
  for (const auto& [storage, type] : {std::pair{CUL_EXPERTS_HALF, kBf16}, {CUL_EXPERTS_F8, kF8}, {CUL_EXPERTS_INT4, kBf16}}) {
    Context context(GetParam());
    GroupedProblem problem(context, {storage, type, {3, 0, 17}, 72, 64, 32, false, false, false, 0, 0, kF16}, 27);
    with_unusual_rows(problem.a, [&] {
      ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
      problem.expect_reference();
    });
  }
}

TEST_P(GroupedGemmTest, nothingToDo) {
  check(GetParam(), {CUL_EXPERTS_HALF, kBf16, {0, 0}, 16, 32, -1, false, false, false, 0, 3, kBf16}, 12);
  check(GetParam(), {CUL_EXPERTS_HALF, kBf16, {0}, 16, 32, -1, false, false, false, 0, 0, kBf16}, 13);
  check(GetParam(), {CUL_EXPERTS_HALF, kBf16, {2, 1}, 16, 0, -1, false, false, false, 8, 0, kBf16}, 14);  // K = 0: zeros
}

// A row has the same bits alone and among others: with batch_invariant for certain.
TEST_P(GroupedGemmTest, rowsDoNotDependOnEachOther) {
  Context context(GetParam());
  for (const int32_t storage : {CUL_EXPERTS_HALF, CUL_EXPERTS_INT4}) {
    const GroupedCase c{storage, kBf16, {0, 45, 30}, 64, 96, 32, false, false, false, 0, 0, kF32, CUL_OP_BATCH_INVARIANT};
    GroupedProblem all(context, c, 15);
    ASSERT_EQ(all.run(), CUL_OK) << cul_last_error();
    cul_moe_grouped_gemm_args args = all.args();
    const int64_t row = 44, stride = 96;
    DeviceTensor alone(context, kBf16, {1, stride}), out(context, kF32, {1, 64}), offsets(context, kI64, {4});
    alone.fill([&](auto, int64_t k) { return all.a.get(row, k); });
    offsets.fill([](auto, int64_t e) { return e < 2 ? 0.0 : 1.0; });
    args.a = &alone.tensor, args.c = &out.tensor, args.offsets = &offsets.tensor;
    ASSERT_EQ(context.run(cul_moe_grouped_gemm, args, CUL_OP_BATCH_INVARIANT), CUL_OK) << cul_last_error();
    out.download();
    for (int64_t n = 0; n < 64; ++n) EXPECT_EQ(out.get(0, n), all.out.get(row, n)) << n;
  }
}

// The workspace of a large call serves a small one, whatever it holds.
TEST_P(GroupedGemmTest, workspaceIsReused) {
  Context context(GetParam());
  GroupedProblem large(context, {CUL_EXPERTS_HALF, kF16, {60, 50, 40}, 64, 64, -1, false, false, false, 0, 0, kF16}, 16);
  GroupedProblem small(context, {CUL_EXPERTS_HALF, kF16, {0, 2, 1}, 64, 64, -1, false, false, false, 0, 0, kF16}, 17);
  cul_moe_grouped_gemm_args args = large.args();
  args.call = {sizeof args, CUL_OP_PLAN_ONLY, nullptr, 0};
  ASSERT_EQ(cul_moe_grouped_gemm(context.stream, &args), CUL_OK) << cul_last_error();
  const uint64_t bytes = cul_last_workspace_bytes();
  void* workspace = nullptr;
  ASSERT_EQ(cul_memory_alloc(context.device, bytes, &workspace), CUL_OK);
  for (GroupedProblem* problem : {&large, &small, &large}) {
    problem->out.fill([](auto, auto) { return 77.0; });
    cul_moe_grouped_gemm_args call = problem->args();
    call.call = {sizeof call, 0, workspace, bytes};
    ASSERT_EQ(cul_moe_grouped_gemm(context.stream, &call), CUL_OK) << cul_last_error();
    problem->out.download();
    problem->expect_reference();
  }
  EXPECT_EQ(cul_memory_free(context.device, workspace), CUL_OK);
}

TEST_P(GroupedGemmTest, badIndicesAreReported) {
  for (int fault = 0; fault < 4; ++fault) {
    Context context(GetParam());
    GroupedProblem problem(context, {CUL_EXPERTS_HALF, kBf16, {3, 4}, 16, 32, -1, false, false, true, 0, 1, kBf16, CUL_OP_VALIDATE}, 18);
    ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
    if (fault == 0) problem.offsets.set(0, 0, 1);
    if (fault == 1) problem.offsets.set(0, 1, 8);
    if (fault == 2) problem.offsets.set(0, 2, 9);
    if (fault == 3) problem.gather.set(0, 5, static_cast<double>(problem.a_rows));
    problem.offsets.upload();
    problem.gather.upload();
    EXPECT_EQ(problem.run(), CUL_DEVICE_ERROR) << fault;
    EXPECT_NE(std::string(cul_last_error()).find(fault == 3 ? "gather[5]" : "offsets"), std::string::npos) << cul_last_error();
  }
}

TEST_P(GroupedGemmTest, refusals) {
  using Args = cul_moe_grouped_gemm_args;
  Context context(GetParam());
  GroupedProblem half(context, {CUL_EXPERTS_HALF, kBf16, {3, 4}, 16, 32}, 19), f8(context, {CUL_EXPERTS_F8, kF8, {3, 4}, 16, 32}, 20),
      int4(context, {CUL_EXPERTS_INT4, kF16, {3, 4}, 16, 32, 32, true, true}, 21);
  const auto status = [&](GroupedProblem& p, auto&& change) {
    Args args = p.args();
    change(args);
    return context.run(cul_moe_grouped_gemm, args);
  };
  const auto with = [&](GroupedProblem& p, const cul_tensor* Args::* field, cul_dtype type, std::vector<int64_t> shape) {
    const DeviceTensor replacement(context, type, shape);
    return status(p, [&](Args& a) { a.*field = &replacement.tensor; });
  };
  for (GroupedProblem* p : {&half, &f8, &int4}) {
    EXPECT_EQ(status(*p, [](Args&) {}), CUL_OK) << cul_last_error();
    for (const auto field : {&Args::a, &Args::b, &Args::offsets, &Args::c})
      EXPECT_EQ(status(*p, [&](Args& a) { a.*field = nullptr; }), CUL_NULL_POINTER);
    EXPECT_EQ(with(*p, &Args::offsets, kI64, {2}), CUL_SHAPE);
    EXPECT_EQ(with(*p, &Args::offsets, kI32, {3}), CUL_DTYPE);
    EXPECT_EQ(with(*p, &Args::gather, kI64, {7}), CUL_DTYPE);
    EXPECT_EQ(with(*p, &Args::gather, kI32, {8}), CUL_SHAPE);
    EXPECT_EQ(with(*p, &Args::c, kBf16, {7, 15}), CUL_SHAPE);
    EXPECT_EQ(with(*p, &Args::c, kI8, {7, 16}), CUL_DTYPE);
    EXPECT_EQ(with(*p, &Args::a, p->c.type, {7, 48}), CUL_SHAPE);
    EXPECT_EQ(with(*p, &Args::a, kF32, {7, 32}), CUL_DTYPE);
    EXPECT_EQ(status(*p, [](Args& a) { a.experts = 3; }), CUL_RANGE);
    EXPECT_EQ(status(*p, [](Args& a) { a.act = CUL_EPILOGUE_SILU; }), CUL_RANGE);
  }
  EXPECT_EQ(with(half, &Args::b, kF16, {2, 16, 32}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::b, kBf16, {32, 32}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::a_scale, kF32, {7, 1}), CUL_UNSUPPORTED);
  EXPECT_EQ(with(half, &Args::b_scales, kF32, {2, 1, 1}), CUL_UNSUPPORTED);
  EXPECT_EQ(with(f8, &Args::b_zeros, kU8, {2, 8, 1}), CUL_UNSUPPORTED);
  EXPECT_EQ(with(f8, &Args::a_scale, kF32, {7, 2}), CUL_SHAPE);
  EXPECT_EQ(with(f8, &Args::a_scale, kF16, {7, 1}), CUL_DTYPE);
  EXPECT_EQ(with(f8, &Args::b_scales, kF32, {2, 2, 1}), CUL_SHAPE);
  for (const auto field : {&Args::a_scale, &Args::b_scales}) EXPECT_EQ(status(f8, [&](Args& a) { a.*field = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(status(int4, [](Args& a) { a.b_scales = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(status(int4, [](Args& a) { a.group = 48; }), CUL_RANGE);
  EXPECT_EQ(with(int4, &Args::b_scales, kF32, {2, 16, 1}), CUL_DTYPE);
  EXPECT_EQ(with(int4, &Args::b_zeros, kU8, {2, 16, 1}), CUL_SHAPE);
  const DeviceTensor odd(context, kBf16, {2, 15, 32}), c(context, kBf16, {7, 7});
  EXPECT_EQ(status(half, [&](Args& a) { a.b = &odd.tensor, a.c = &c.tensor, a.act = CUL_EPILOGUE_SILU_MUL; }), CUL_SHAPE);
  EXPECT_EQ(status(half, [](Args& a) { a.c = a.a; }), CUL_SHAPE);
  GroupedProblem square(context, {CUL_EXPERTS_HALF, kBf16, {3, 4}, 32, 32}, 22);
  EXPECT_EQ(status(square, [](Args& a) { a.c = a.a; }), CUL_UNSUPPORTED) << "c is a";
}

INSTANTIATE_TEST_SUITE_P(Devices, GroupedGemmTest, ::testing::ValuesIn(devices_here()),
                         [](const auto& info) { return device_test_name(info); });

TEST(GroupedGemmPlan, tilesAreThoseOfTheWorstSpread) {
  GroupedGemmParams p;
  p.b.experts = 8, p.b.rows = 256, p.b.columns = 64;
  DeviceCaps caps;
  caps.multiprocessors = 132;
  std::string reason;
  p.rows = 5;
  GroupedPlan plan = plan_grouped_gemm(p, caps, &reason);
  EXPECT_EQ(plan.tile_tokens, 16);
  EXPECT_EQ(plan.row_tiles, 5) << "five experts with a row each";
  EXPECT_EQ(plan.column_tiles, 2);
  p.rows = 4096;
  plan = plan_grouped_gemm(p, caps, &reason);
  EXPECT_EQ(plan.tile_tokens, 128);
  EXPECT_EQ(plan.row_tiles, 39) << "32 of whole rows and seven begun";
  EXPECT_NE(reason.find("512 rows for each of 8 experts"), std::string::npos) << reason;
  caps.compute_major = 9;
  p.b.row_stride = 64, p.b.expert_stride = 64 * 256, p.lda = 64, p.a_rows = 4096;
  plan = plan_grouped_gemm(p, caps, &reason);
  EXPECT_EQ(plan.design, GemmDesign::hopper);
  EXPECT_EQ(plan.tile_tokens, 256);
  p.b.row_stride = 68;
  EXPECT_EQ(plan_grouped_gemm(p, caps, &reason).design, GemmDesign::marlin) << "rows at 8 bytes";
}

}  // namespace
}  // namespace culebra

// sparse_mlp through the C ABI on every backend that runs here, against the definition in double over the exact operands.
#include "ops/gemm/sparse_mlp.h"

#include <limits>

#include "gemm_harness.h"

namespace culebra {
namespace {

using namespace culebra::testing;

struct MlpCase {
  int64_t rows, d, inner;
  cul_dtype type;
  double share;  // of h that is switched off, about
  int64_t pad = 0;
  bool batch_invariant = false;
};

class MlpProblem {
 public:
  MlpProblem(Context& context, const MlpCase& c, uint32_t seed)
      : context_(context), case_(c), x(context, c.type, {c.rows, c.d}, c.pad), gate(context, c.type, {c.inner, c.d}, c.pad),
        up(context, c.type, {c.inner, c.d}, c.pad), down(context, c.type, {c.inner, c.d}, c.pad), y(context, c.type, {c.rows, c.d}, c.pad),
        active(context, kI32, {c.rows}) {
    std::mt19937 rng(seed);
    std::normal_distribution<double> normal;
    x.fill([&](auto, auto) { return normal(rng); });
    for (DeviceTensor* w : {&gate, &up, &down}) w->fill([&](auto, auto) { return normal(rng) / std::sqrt(static_cast<double>(std::max<int64_t>(c.d, 1))); });
    choose_threshold();
  }

  double h(int64_t row, int64_t i) const {
    double sum = 0;
    for (int64_t j = 0; j < case_.d; ++j) sum += x.get(row, j) * gate.get(i, j);
    return sum / (1 + std::exp(-sum));
  }

  // In the middle of the widest gap near the share: no value is close enough for rounding to decide.
  void choose_threshold() {
    std::vector<double> all{0};
    for (int64_t r = 0; r < case_.rows; ++r)
      for (int64_t i = 0; i < case_.inner; ++i) all.push_back(std::abs(h(r, i)));
    std::sort(all.begin(), all.end());
    if (case_.share == 0) return;
    const auto middle = static_cast<size_t>(case_.share * static_cast<double>(all.size() - 1));
    double widest = 0;
    for (size_t i = middle > 5 ? middle - 5 : 0; i + 1 < all.size() && i < middle + 5; ++i)
      if (all[i + 1] - all[i] > widest) widest = all[i + 1] - all[i], threshold = static_cast<float>((all[i + 1] + all[i]) / 2);
    if (case_.share == 1) threshold = static_cast<float>(all.back() * 2 + 1);
  }

  cul_status run(bool count = true) {
    cul_sparse_mlp_args args{};
    args.x = &x.tensor, args.w_gate = &gate.tensor, args.w_up = &up.tensor, args.w_down_t = &down.tensor, args.y = &y.tensor;
    args.active = count ? &active.tensor : nullptr;
    args.threshold = threshold;
    const cul_status status = context_.run(cul_sparse_mlp, args, case_.batch_invariant ? CUL_OP_BATCH_INVARIANT : 0);
    if (status == CUL_OK) y.download(), active.download();
    return status;
  }

  void expect_reference() const {
    double error = 0, scale = 0;
    for (int64_t r = 0; r < case_.rows; ++r) {
      std::vector<double> want(static_cast<size_t>(case_.d));
      int64_t count = 0;
      for (int64_t i = 0; i < case_.inner; ++i) {
        const double value = h(r, i);
        if (std::abs(value) < static_cast<double>(threshold)) continue;
        ++count;
        double sum = 0;
        for (int64_t j = 0; j < case_.d; ++j) sum += x.get(r, j) * up.get(i, j);
        for (int64_t j = 0; j < case_.d; ++j) want[static_cast<size_t>(j)] += value * sum * down.get(i, j);
      }
      EXPECT_EQ(active.get(0, r), static_cast<double>(count)) << "row " << r;
      for (int64_t j = 0; j < case_.d; ++j) {
        const double delta = y.get(r, j) - want[static_cast<size_t>(j)];
        error += delta * delta;
        scale += want[static_cast<size_t>(j)] * want[static_cast<size_t>(j)];
      }
    }
    EXPECT_LE(std::sqrt(error), (case_.type.code == CUL_BFLOAT ? 5e-3 : 2e-3) * std::sqrt(scale)) << context_.plan;
    EXPECT_TRUE(y.guards_untouched());
  }

 private:
  Context& context_;
  MlpCase case_;

 public:
  DeviceTensor x, gate, up, down, y, active;
  float threshold = 0;
};

void check(int32_t backend, const MlpCase& c, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << c.rows << " rows, d " << c.d << ", inner " << c.inner << ", " << name_of(dtype_of(c.type)) << ", seed " << seed);
  Context context(backend);
  MlpProblem problem(context, c, seed);
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  problem.expect_reference();
  const auto first = problem.y.image;
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  EXPECT_EQ(first, problem.y.image) << "two runs differ";
}

class SparseMlpTest : public ::testing::TestWithParam<int32_t> {};

TEST_P(SparseMlpTest, everyNumberOfRowsAndShare) {
  uint32_t seed = 20261200;
  for (const cul_dtype type : {kF16, kBf16})
    for (int64_t rows = 1; rows <= 4; ++rows)
      for (const double share : {0.0, 0.5, 0.95, 1.0}) check(GetParam(), {.rows = rows, .d = 72, .inner = 100, .type = type, .share = share}, seed++);
}

TEST_P(SparseMlpTest, raggedAndUnaligned) {
  uint32_t seed = 20261240;
  for (const int64_t pad : {0, 3, 8}) {
    check(GetParam(), {.rows = 3, .d = 77, .inner = 33, .type = kF16, .share = 0.4, .pad = pad}, seed++);
    check(GetParam(), {.rows = 2, .d = 5, .inner = 7, .type = kBf16, .share = 0.3, .pad = pad}, seed++);
  }
  check(GetParam(), {.rows = 1, .d = 1, .inner = 1, .type = kBf16, .share = 0}, seed++);
}

TEST_P(SparseMlpTest, manyTilesAndSegments) {
  check(GetParam(), {.rows = 2, .d = 1100, .inner = 150, .type = kBf16, .share = 0.6}, 20261250);
  check(GetParam(), {.rows = 1, .d = 40, .inner = 2500, .type = kF16, .share = 0.2}, 20261251);
}

TEST_P(SparseMlpTest, emptyExtents) {
  check(GetParam(), {.rows = 0, .d = 16, .inner = 8, .type = kF16, .share = 0}, 1);
  check(GetParam(), {.rows = 3, .d = 16, .inner = 0, .type = kF16, .share = 0}, 2);
  check(GetParam(), {.rows = 3, .d = 0, .inner = 8, .type = kBf16, .share = 0}, 3);
}

TEST_P(SparseMlpTest, activeIsOptional) {
  Context context(GetParam());
  MlpProblem problem(context, {.rows = 2, .d = 24, .inner = 40, .type = kF16, .share = 0.5}, 20261260);
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  const auto with = problem.y.image;
  ASSERT_EQ(problem.run(false), CUL_OK) << cul_last_error();
  EXPECT_EQ(with, problem.y.image);
}

// What no row needs is not read, and what one row needs does not reach another: NaN in all other rows of w_up and w_down_t.
TEST_P(SparseMlpTest, rowsThatAreNotNeededAreNotRead) {
  Context context(GetParam());
  MlpProblem problem(context, {.rows = 3, .d = 40, .inner = 64, .type = kBf16, .share = 0.7}, 20261270);
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  const auto clean = problem.y.image;
  int poisoned = 0;
  for (int64_t i = 0; i < 64; ++i) {
    const auto off = [&](int64_t row) { return std::abs(problem.h(row, i)) < static_cast<double>(problem.threshold); };
    if (!off(0) || !off(1)) continue;  // row 2 may need it
    ++poisoned;
    for (int64_t j = 0; j < 40; ++j) problem.up.set(i, j, NAN), problem.down.set(i, j, NAN);
  }
  ASSERT_GT(poisoned, 5);
  problem.up.upload();
  problem.down.upload();
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  EXPECT_EQ(std::memcmp(clean.data(), problem.y.image.data(), 2 * 40 * 2), 0) << "rows 0 and 1";
  EXPECT_TRUE(std::isnan(problem.y.get(2, 0)));
}

TEST_P(SparseMlpTest, notANumberStaysInItsRow) {
  Context context(GetParam());
  MlpProblem problem(context, {.rows = 4, .d = 40, .inner = 64, .type = kF16, .share = 0.5}, 20261280);
  problem.x.set(1, 3, NAN);
  problem.x.upload();
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t j = 0; j < 40; ++j) ASSERT_EQ(std::isnan(problem.y.get(r, j)), r == 1) << r << ", " << j;
}

TEST_P(SparseMlpTest, batchInvariantRowsHaveTheirOwnBits) {
  Context context(GetParam());
  for (const cul_dtype type : {kBf16, kF16}) {  // f16 keeps more of what another order of sums changes
    const MlpCase c{.rows = 4, .d = 1032, .inner = 48, .type = type, .share = 0.6, .batch_invariant = true};
    MlpProblem all(context, c, 20261290);
    ASSERT_EQ(all.run(), CUL_OK) << cul_last_error();
    all.expect_reference();
    for (int64_t row = 0; row < 4; ++row) {
      MlpCase single = c;
      single.rows = 1;
      MlpProblem one(context, single, 1);
      one.x.fill([&](auto, int64_t j) { return all.x.get(row, j); });
      for (const auto& [to, from] : {std::pair{&one.gate, &all.gate}, {&one.up, &all.up}, {&one.down, &all.down}})
        to->fill([&, f = from](int64_t i, int64_t j) { return f->get(i, j); });
      one.threshold = all.threshold;
      ASSERT_EQ(one.run(), CUL_OK) << cul_last_error();
      for (int64_t j = 0; j < c.d; ++j) ASSERT_EQ(one.y.get(0, j), all.y.get(row, j)) << row << ", " << j;
      EXPECT_EQ(one.active.get(0, 0), all.active.get(0, row));
    }
  }
}

TEST_P(SparseMlpTest, refusals) {
  Context context(GetParam());
  DeviceTensor x(context, kF16, {4, 16}), five(context, kF16, {5, 16}), narrow(context, kF16, {4, 8}), gate(context, kF16, {32, 16}),
      up(context, kF16, {32, 16}), down(context, kF16, {32, 16}), fewer(context, kF16, {31, 16}), other(context, kBf16, {32, 16}),
      y(context, kF16, {4, 16}), active(context, kI32, {4}), bytes(context, kU8, {4}), three(context, kI32, {3});
  const auto call = [&](auto change) {
    cul_sparse_mlp_args args{};
    args.x = &x.tensor, args.w_gate = &gate.tensor, args.w_up = &up.tensor, args.w_down_t = &down.tensor, args.y = &y.tensor;
    args.active = &active.tensor;
    args.threshold = 0.5f;
    change(args);
    return context.run(cul_sparse_mlp, args);
  };
  using Args = cul_sparse_mlp_args;
  EXPECT_EQ(call([](Args&) {}), CUL_OK) << cul_last_error();
  EXPECT_EQ(call([&](Args& a) { a.x = &five.tensor; }), CUL_SHAPE);
  EXPECT_NE(std::string(cul_last_error()).find("sparse_mlp: x is [5, 16]"), std::string::npos) << cul_last_error();
  EXPECT_EQ(call([&](Args& a) { a.x = &narrow.tensor; }), CUL_SHAPE);
  EXPECT_EQ(call([&](Args& a) { a.w_up = &fewer.tensor; }), CUL_SHAPE);
  EXPECT_EQ(call([&](Args& a) { a.w_down_t = &fewer.tensor; }), CUL_SHAPE);
  EXPECT_EQ(call([&](Args& a) { a.w_down_t = &other.tensor; }), CUL_DTYPE);
  EXPECT_EQ(call([&](Args& a) { a.w_gate = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(call([&](Args& a) { a.y = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(call([&](Args& a) { a.y = &narrow.tensor; }), CUL_SHAPE);
  EXPECT_EQ(call([&](Args& a) { a.y = &x.tensor; }), CUL_UNSUPPORTED);
  int64_t folded[] = {8, 1};
  cul_tensor overlapping = y.tensor;
  overlapping.strides = folded;
  EXPECT_EQ(call([&](Args& a) { a.y = &overlapping; }), CUL_STRIDE);
  EXPECT_EQ(call([&](Args& a) { a.active = &bytes.tensor; }), CUL_DTYPE);
  EXPECT_EQ(call([&](Args& a) { a.active = &three.tensor; }), CUL_SHAPE);
  for (const float threshold : {-0.5f, NAN}) EXPECT_EQ(call([&](Args& a) { a.threshold = threshold; }), CUL_RANGE);
}

INSTANTIATE_TEST_SUITE_P(, SparseMlpTest, ::testing::ValuesIn(backends_here()), backend_test_name);

TEST(SparseMlpPlanTest, segmentsFillTheDeviceAndTheirListsFit) {
  std::string reason;
  SparseMlpPlan plan = plan_sparse_mlp(1, 4096, 14336, false, 132, &reason);
  EXPECT_EQ(plan.column_tiles, 8);
  EXPECT_EQ(plan.up_segments, 528);
  EXPECT_EQ(plan.down_segments, 66) << reason;
  plan = plan_sparse_mlp(4, 8192, 1 << 20, true, 16, &reason);
  EXPECT_EQ(plan.rows_at_once, 1);
  EXPECT_EQ(plan.up_segments, 512);
  EXPECT_EQ(plan.down_segments, 512) << reason;
  EXPECT_EQ(plan_sparse_mlp(0, 64, 64, false, 132, &reason).workspace_bytes, 0u);
}

}  // namespace
}  // namespace culebra

// linear_logprob through the C ABI on every backend that runs here, against log-softmax in double over the exact operands.
#include "ops/gemm/linear_logprob.h"

#include <limits>

#include "backends/backend.h"
#include "gemm_harness.h"

namespace culebra {
namespace {

using namespace culebra::testing;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct LogprobCase {
  int64_t n, v, d;
  cul_dtype type;
  bool bias = false;
  float softcap = 0;
  int64_t vocab_start = 0, pad = 0;
  bool batch_invariant = false;
};

// Operands of one call; targets are drawn inside and around the vocabulary.
class LogprobProblem {
 public:
  LogprobProblem(Context& context, const LogprobCase& c, uint32_t seed)
      : context_(context), case_(c), e(context, c.type, {c.n, c.d}, c.pad), words(context, c.type, {c.v, c.d}, c.pad),
        bias(context, c.type, {c.v}), targets(context, kI64, {c.n}), logprob(context, kF32, {c.n}), lse(context, kF32, {c.n}) {
    std::mt19937 rng(seed);
    std::normal_distribution<double> normal;
    e.fill([&](auto, auto) { return normal(rng); });
    words.fill([&](auto, auto) { return 3 * normal(rng) / std::sqrt(static_cast<double>(c.d)); });
    bias.fill([&](auto, auto) { return 2 * normal(rng); });
    targets.fill([&](auto, int64_t i) {
      return static_cast<double>(i % 5 == 4 ? -100 : c.vocab_start - 3 + static_cast<int64_t>(rng() % static_cast<uint32_t>(c.v + 6)));
    });
  }

  cul_status run() {
    cul_linear_logprob_args args{};
    args.e = &e.tensor, args.c = &words.tensor, args.bias = case_.bias ? &bias.tensor : nullptr, args.targets = &targets.tensor;
    args.logprob = &logprob.tensor, args.lse = &lse.tensor;
    args.ignore_index = -100, args.vocab_start = case_.vocab_start, args.softcap = case_.softcap;
    const cul_status status = context_.run(cul_linear_logprob, args, case_.batch_invariant ? CUL_OP_BATCH_INVARIANT : 0);
    if (status == CUL_OK) logprob.download(), lse.download();
    return status;
  }

  // {logprob, lse} of a token.
  std::pair<double, double> reference(int64_t token) const {
    std::vector<double> z;
    for (int64_t v = 0; v < case_.v; ++v) {
      double sum = case_.bias ? bias.get(0, v) : 0;
      for (int64_t j = 0; j < case_.d; ++j) sum += e.get(token, j) * words.get(v, j);
      if (case_.softcap > 0 && sum != -kInfinity) sum = case_.softcap * std::tanh(sum / case_.softcap);
      z.push_back(sum);
    }
    double top = -kInfinity, sum = 0;
    for (double x : z) top = std::max(top, x);
    for (double x : z) sum += std::exp(x - (top == -kInfinity ? 0 : top));
    const double log_sum = (top == -kInfinity ? 0 : top) + std::log(sum);
    const double target = targets.get(0, token), word = target - static_cast<double>(case_.vocab_start);  // targets may be any int64
    if (target == -100) return {0, log_sum};
    const bool impossible = word < 0 || word >= static_cast<double>(case_.v) || z[static_cast<size_t>(word)] == -kInfinity;
    return {impossible ? -kInfinity : z[static_cast<size_t>(word)] - log_sum, log_sum};
  }

  void expect_reference() {
    double error[2] = {}, scale[2] = {};
    for (int64_t i = 0; i < case_.n; ++i) {
      const auto [want_logprob, want_lse] = reference(i);
      const double want[2] = {want_logprob, want_lse}, got[2] = {logprob.get(0, i), lse.get(0, i)};
      for (int j = 0; j < 2; ++j) {
        if (std::isinf(want[j]) || want[j] == 0) {
          EXPECT_EQ(got[j], want[j]) << (j ? "lse " : "logprob ") << i;
          continue;
        }
        error[j] += (got[j] - want[j]) * (got[j] - want[j]);
        scale[j] += want[j] * want[j];
      }
    }
    const double bound = case_.type.bits == 32 ? 1e-5 : 5e-5;
    for (int j = 0; j < 2; ++j) EXPECT_LE(std::sqrt(error[j]), bound * std::sqrt(scale[j])) << (j ? "lse" : "logprob") << "; " << context_.plan;
  }

 private:
  Context& context_;
  LogprobCase case_;

 public:
  DeviceTensor e, words, bias, targets, logprob, lse;
};

void check(DeviceChoice device, const LogprobCase& c, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << c.n << " tokens, " << c.v << " words, d " << c.d << ", " << name_of(dtype_of(c.type)) << ", seed " << seed);
  Context context(device);
  LogprobProblem problem(context, c, seed);
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  problem.expect_reference();
  const auto first = problem.logprob.image, first_lse = problem.lse.image;
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  EXPECT_EQ(first, problem.logprob.image) << "two runs differ";
  EXPECT_EQ(first_lse, problem.lse.image) << "two runs differ";
}

class LinearLogprobTest : public ::testing::TestWithParam<DeviceChoice> {};

TEST_P(LinearLogprobTest, everyTypeTileAndTail) {
  uint32_t seed = 20261100;
  for (const cul_dtype type : {kF32, kF16, kBf16}) {
    check(GetParam(), {.n = 1, .v = 300, .d = 72, .type = type}, seed++);
    check(GetParam(), {.n = 7, .v = 129, .d = 40, .type = type, .bias = true, .pad = 3}, seed++);
    check(GetParam(), {.n = 131, .v = 257, .d = 16, .type = type, .bias = true, .softcap = 5}, seed++);
    check(GetParam(), {.n = 20, .v = 1, .d = 8, .type = type, .pad = 8}, seed++);
    check(GetParam(), {.n = 40, .v = 700, .d = 328, .type = type, .bias = true, .pad = 8}, seed++);  // more slices than stages
  }
}

TEST_P(LinearLogprobTest, longVocabulariesAreMergedFromRanges) {
  check(GetParam(), {.n = 17, .v = 5000, .d = 8, .type = kBf16, .bias = true, .vocab_start = 900}, 20261120);
  check(GetParam(), {.n = 3, .v = 5000, .d = 8, .type = kF32, .bias = true}, 20261121);
}

TEST_P(LinearLogprobTest, shardsMergeToTheWhole) {
  Context context(GetParam());
  const LogprobCase whole{.n = 9, .v = 500, .d = 24, .type = kF16};
  LogprobProblem all(context, whole, 20261130);
  all.targets.fill([](auto, int64_t i) { return static_cast<double>(i * 61); });
  ASSERT_EQ(all.run(), CUL_OK) << cul_last_error();
  std::vector<double> label(9, -kInfinity), lse(9, -kInfinity);
  const auto log_add = [](double a, double b) { return std::isinf(a) ? b : std::isinf(b) ? a : std::max(a, b) + std::log1p(std::exp(-std::abs(a - b))); };
  for (const auto& [start, count] : {std::pair<int64_t, int64_t>{0, 200}, {200, 200}, {400, 100}}) {
    LogprobProblem shard(context, {.n = 9, .v = count, .d = 24, .type = kF16, .vocab_start = start}, 1);
    shard.e.fill([&](int64_t r, int64_t j) { return all.e.get(r, j); });
    shard.words.fill([&, first = start](int64_t r, int64_t j) { return all.words.get(first + r, j); });
    shard.targets.fill([&](auto, int64_t i) { return all.targets.get(0, i); });
    ASSERT_EQ(shard.run(), CUL_OK) << cul_last_error();
    for (size_t i = 0; i < 9; ++i) {
      const auto at = static_cast<int64_t>(i);
      label[i] = log_add(label[i], shard.logprob.get(0, at) + shard.lse.get(0, at));
      lse[i] = log_add(lse[i], shard.lse.get(0, at));
    }
  }
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_NEAR(lse[i], all.lse.get(0, static_cast<int64_t>(i)), 1e-4);
    EXPECT_NEAR(label[i] - lse[i], all.logprob.get(0, static_cast<int64_t>(i)), 1e-4);
  }
}

// -inf masks a word, with a softcap too; a row that is masked altogether has no probability to give.
TEST_P(LinearLogprobTest, maskedWords) {
  for (const cul_dtype type : {kF32, kBf16})
    for (const float softcap : {0.0f, 4.0f}) {
      Context context(GetParam());
      LogprobProblem some(context, {.n = 12, .v = 150, .d = 16, .type = type, .bias = true, .softcap = softcap}, 20261140);
      some.bias.fill([](auto, int64_t v) { return v % 3 ? -kInfinity : 0.25 * static_cast<double>(v % 7); });
      some.targets.fill([](auto, int64_t i) { return static_cast<double>(i); });
      ASSERT_EQ(some.run(), CUL_OK) << cul_last_error();
      some.expect_reference();
      some.bias.fill([](auto, auto) { return -kInfinity; });
      ASSERT_EQ(some.run(), CUL_OK) << cul_last_error();
      some.expect_reference();
    }
}

TEST_P(LinearLogprobTest, targetsFarOutsideAreNoIndex) {
  Context context(GetParam());
  LogprobProblem problem(context, {.n = 4, .v = 20, .d = 8, .type = kF16, .vocab_start = 30}, 20261150);
  const int64_t targets[] = {std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(), 29, 50};
  std::memcpy(problem.targets.image.data(), targets, sizeof targets);
  problem.targets.upload();
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(problem.logprob.get(0, i), -kInfinity) << i;
    EXPECT_NEAR(problem.lse.get(0, i), problem.reference(i).second, 1e-3);
  }
}

TEST_P(LinearLogprobTest, whatIsNoNumberStaysInItsRow) {
  for (const cul_dtype type : {kF32, kF16}) {
    Context context(GetParam());
    LogprobProblem problem(context, {.n = 6, .v = 70, .d = 8, .type = type, .softcap = type.bits == 32 ? 3.0f : 0.0f}, 20261160);
    problem.targets.fill([](auto, int64_t i) { return static_cast<double>(i); });
    problem.e.set(2, 7, NAN);
    problem.e.upload();
    ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
    for (int64_t i = 0; i < 6; ++i) {
      EXPECT_EQ(std::isnan(problem.lse.get(0, i)), i == 2) << i;
      EXPECT_EQ(std::isnan(problem.logprob.get(0, i)), i == 2) << i;
    }
  }
}

TEST_P(LinearLogprobTest, infiniteLogit) {
  Context context(GetParam());
  LogprobProblem problem(context, {.n = 2, .v = 40, .d = 8, .type = kF32, .bias = true}, 20261170);
  problem.bias.set(0, 5, kInfinity);
  problem.bias.upload();
  problem.targets.fill([](auto, int64_t i) { return static_cast<double>(i); });
  ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_EQ(problem.lse.get(0, i), kInfinity);
    EXPECT_EQ(problem.logprob.get(0, i), -kInfinity);
  }
}

TEST_P(LinearLogprobTest, emptyExtents) {
  Context context(GetParam());
  LogprobProblem no_tokens(context, {.n = 0, .v = 40, .d = 8, .type = kF16}, 1);
  EXPECT_EQ(no_tokens.run(), CUL_OK) << cul_last_error();
  for (const cul_dtype type : {kF32, kF16}) {
    LogprobProblem no_words(context, {.n = 5, .v = 0, .d = 8, .type = type}, 2);
    ASSERT_EQ(no_words.run(), CUL_OK) << cul_last_error();
    no_words.expect_reference();
    check(GetParam(), {.n = 5, .v = 40, .d = 0, .type = type, .bias = true}, 3);
  }
}

TEST_P(LinearLogprobTest, rowsThatRepeatOrDescend) {
  Context context(GetParam());
  LogprobProblem problem(context, {.n = 20, .v = 150, .d = 24, .type = kF16}, 20261110);
  const auto compared = [&] {
    ASSERT_EQ(problem.run(), CUL_OK) << cul_last_error();
    problem.expect_reference();
  };
  with_unusual_rows(problem.e, compared);
  with_unusual_rows(problem.words, compared);
}

TEST_P(LinearLogprobTest, batchInvariantRowsHaveTheirOwnBits) {
  for (const cul_dtype type : {kF32, kBf16}) {
    Context context(GetParam());
    const LogprobCase c{.n = 21, .v = 700, .d = 24, .type = type, .batch_invariant = true};
    LogprobProblem all(context, c, 20261180);
    ASSERT_EQ(all.run(), CUL_OK) << cul_last_error();
    for (const int64_t row : {0, 11, 20}) {
      LogprobCase single = c;
      single.n = 1;
      LogprobProblem one(context, single, 1);
      one.e.fill([&](auto, int64_t j) { return all.e.get(row, j); });
      one.words.fill([&](int64_t v, int64_t j) { return all.words.get(v, j); });
      one.targets.fill([&](auto, auto) { return all.targets.get(0, row); });
      ASSERT_EQ(one.run(), CUL_OK) << cul_last_error();
      EXPECT_EQ(one.logprob.get(0, 0), all.logprob.get(0, row)) << row;
      EXPECT_EQ(one.lse.get(0, 0), all.lse.get(0, row)) << row;
    }
  }
}

TEST_P(LinearLogprobTest, refusals) {
  Context context(GetParam());
  DeviceTensor e(context, kF16, {4, 16}), words(context, kF16, {50, 16}), narrow(context, kF16, {50, 8}), other(context, kBf16, {50, 16}),
      bias(context, kF16, {50}), short_bias(context, kF16, {49}), targets(context, kI64, {4}), targets32(context, kI32, {4}), logprob(context, kF32, {4}),
      lse(context, kF32, {4}), three(context, kF32, {3}), half(context, kF16, {4});
  const auto call = [&](auto change) {
    cul_linear_logprob_args args{};
    args.e = &e.tensor, args.c = &words.tensor, args.bias = &bias.tensor, args.targets = &targets.tensor;
    args.logprob = &logprob.tensor, args.lse = &lse.tensor;
    change(args);
    return context.run(cul_linear_logprob, args);
  };
  using Args = cul_linear_logprob_args;
  EXPECT_EQ(call([](Args&) {}), CUL_OK) << cul_last_error();
  EXPECT_EQ(call([&](Args& a) { a.c = &narrow.tensor; }), CUL_SHAPE);
  EXPECT_NE(std::string(cul_last_error()).find("linear_logprob: e is [4, 16] but c is [50, 8]"), std::string::npos) << cul_last_error();
  EXPECT_EQ(call([&](Args& a) { a.c = &other.tensor; }), CUL_DTYPE);
  EXPECT_EQ(call([&](Args& a) { a.bias = &short_bias.tensor; }), CUL_SHAPE);
  EXPECT_EQ(call([&](Args& a) { a.targets = &targets32.tensor; }), CUL_DTYPE);
  EXPECT_EQ(call([&](Args& a) { a.targets = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(call([&](Args& a) { a.lse = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(call([&](Args& a) { a.lse = &three.tensor; }), CUL_SHAPE);
  EXPECT_EQ(call([&](Args& a) { a.logprob = &half.tensor; }), CUL_DTYPE);
  EXPECT_EQ(call([&](Args& a) { a.lse = a.logprob; }), CUL_UNSUPPORTED);
  for (const float softcap : {-1.0f, NAN, INFINITY}) EXPECT_EQ(call([&](Args& a) { a.softcap = softcap; }), CUL_RANGE);
  EXPECT_EQ(call([](Args& a) { a.vocab_start = -1; }), CUL_RANGE);
}

INSTANTIATE_TEST_SUITE_P(, LinearLogprobTest, ::testing::ValuesIn(devices_here()), device_test_name);

TEST(LinearLogprobPlanTest, rangesFillTheDeviceOrAreFixed) {
  DeviceCaps a100, h200;
  a100.compute_major = 8, h200.compute_major = 9;
  a100.multiprocessors = h200.multiprocessors = 132;
  LogprobParams p{};
  p.v = 128256, p.d = p.lde = p.ldc = 4096, p.dtype = DType::bf16;
  std::string reason;
  const auto plan = [&](const DeviceCaps& caps, int64_t n, bool batch_invariant = false) {
    p.n = n, p.batch_invariant = batch_invariant;
    return plan_linear_logprob(p, caps, &reason);
  };
  for (const DeviceCaps& caps : {a100, h200}) {
    const LogprobPlan many = plan(caps, 8192);
    EXPECT_EQ(many.design, caps.compute_major == 9 ? GemmDesign::hopper : GemmDesign::marlin) << reason;
    EXPECT_EQ(many.tile_tokens, 128);
    EXPECT_EQ(many.ranges, 17) << reason;
    EXPECT_EQ(many.workspace_bytes, 8192u * 17 * 8);
    const LogprobPlan one = plan(caps, 1);
    EXPECT_EQ(one.design, GemmDesign::marlin) << reason;
    EXPECT_EQ(one.tile_tokens, 16);
    EXPECT_EQ(one.tiles_per_range, 4);
    EXPECT_EQ(one.ranges, 251);
    for (const int64_t n : {1, 100, 10000}) {
      const LogprobPlan fixed = plan(caps, n, true);
      EXPECT_EQ(fixed.design, many.design) << reason;
      EXPECT_EQ(fixed.tile_tokens, 128);
      EXPECT_EQ(fixed.ranges, 32) << reason;
    }
  }
  p.lde = p.d = 4097, p.ldc = 4104;  // the design of a row does not depend on how many there are
  EXPECT_EQ(plan(h200, 1, true).design, GemmDesign::marlin);
  EXPECT_EQ(plan(h200, 100, true).design, GemmDesign::marlin);
  EXPECT_EQ(plan(h200, 100).design, GemmDesign::marlin);
  EXPECT_NE(reason.find("16 bytes"), std::string::npos) << reason;
  p.v = 0, p.dtype = DType::f32;
  EXPECT_EQ(plan(h200, 5).ranges, 0);
}

}  // namespace
}  // namespace culebra

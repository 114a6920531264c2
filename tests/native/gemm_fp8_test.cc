// fp8_gemm on every backend that has it, against sums in double precision of the values as stored; its plan.
#include "abi/call.h"
#include "backends/backend.h"
#include "gemm_f8_harness.h"
#include "ops/gemm/fp8_gemm.h"

namespace culebra::testing {
namespace {

struct Case {
  int64_t m, n, k;
  int32_t scaling;
  cul_dtype out;
  bool bias = false;
  int64_t pad = 0;  // elements between rows, a multiple of 16 where rows must stay aligned
};

struct Problem {
  Case c;
  DeviceTensor a, b, a_scale, b_scale, bias, out;
  cul_fp8_gemm_args args{};

  static int64_t blocks(int64_t extent) { return (extent + 127) / 128; }
  static std::vector<int64_t> scale_shape(int32_t scaling, int64_t rows, int64_t block_rows, int64_t k) {
    if (scaling == CUL_FP8_SCALING_TENSOR) return {1};
    if (scaling == CUL_FP8_SCALING_TOKEN_CHANNEL) return {rows, 1};
    return {block_rows, blocks(k)};
  }

  Problem(Context& context, const Case& c, uint32_t seed)
      : c(c),
        a(context, kF8, {c.m, c.k}, c.pad),
        b(context, kF8, {c.n, c.k}, c.pad),
        a_scale(context, kF32, scale_shape(c.scaling, c.m, c.m, c.k), c.pad),
        b_scale(context, kF32, scale_shape(c.scaling, c.n, blocks(c.n), c.k), c.pad),
        bias(context, c.out, {c.n}),
        out(context, c.out, {c.m, c.n}, c.pad) {
    std::mt19937 rng(seed);
    std::normal_distribution<double> normal;
    const auto value = [&](int64_t, int64_t) { return normal(rng) * (rng() % 16 ? 1.0 : 0.004); };  // some are subnormal
    a.fill(value);
    b.fill(value);
    const auto scale = [&](int64_t, int64_t) { return 0.01 * std::exp(normal(rng)); };
    a_scale.fill(scale);
    b_scale.fill(scale);
    bias.fill(value);
    args.a = &a.tensor;
    args.b = &b.tensor;
    args.a_scale = &a_scale.tensor;
    args.b_scale = &b_scale.tensor;
    args.bias = c.bias ? &bias.tensor : nullptr;
    args.c = &out.tensor;
    args.scaling = c.scaling;
  }

  double reference(int64_t row, int64_t column) const {
    double total = 0;
    for (int64_t k0 = 0; k0 < c.k; k0 += 128) {
      double sum = 0;
      for (int64_t k = k0; k < std::min(c.k, k0 + 128); ++k) sum += a.get(row, k) * b.get(column, k);
      if (c.scaling == CUL_FP8_SCALING_BLOCK128) sum *= a_scale.get(row, k0 / 128) * b_scale.get(column / 128, k0 / 128);
      total += sum;
    }
    if (c.scaling == CUL_FP8_SCALING_TENSOR) total *= a_scale.get(0, 0) * b_scale.get(0, 0);
    if (c.scaling == CUL_FP8_SCALING_TOKEN_CHANNEL) total *= a_scale.get(row, 0) * b_scale.get(column, 0);
    return total + (c.bias ? bias.get(0, column) : 0);
  }
};

void compare(Context& context, const Case& c, uint32_t seed, uint32_t flags = 0) {
  SCOPED_TRACE(::testing::Message() << c.m << " x " << c.n << " x " << c.k << " scaling " << c.scaling << " "
                                    << name_of(dtype_of(c.out)) << (c.bias ? " bias" : "") << " pad " << c.pad);
  Problem p(context, c, seed);
  expect_product(context, cul_fp8_gemm, p.args, p.out, [&](int64_t row, int64_t column) { return p.reference(row, column); }, flags);
}

class Fp8Gemm : public ::testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Backends, Fp8Gemm, ::testing::ValuesIn(backends_here()), backend_test_name);

TEST_P(Fp8Gemm, MatchesDoublePrecision) {
  on_backend(GetParam(), [](Context& context) {
    uint32_t seed = 1;
    for (const int32_t scaling : {CUL_FP8_SCALING_TENSOR, CUL_FP8_SCALING_TOKEN_CHANNEL, CUL_FP8_SCALING_BLOCK128}) {
      compare(context, {1, 72, 272, scaling, kBf16, true}, seed++);
      compare(context, {3, 200, 320, scaling, kF32, false, 16}, seed++);
      compare(context, {17, 130, 144, scaling, kF16, true, 32}, seed++);
      compare(context, {65, 1, 16, scaling, kF32, true}, seed++);
      compare(context, {70, 129, 400, scaling, kF32, true}, seed++);
    }
  });
}

// Rows that the copy engine cannot take; k shared by the blocks of a cluster; the largest tile, with an edge in both directions.
TEST_P(Fp8Gemm, TakesEveryWayThroughThePlan) {
  Context context(GetParam());
  for (const int32_t scaling : {CUL_FP8_SCALING_TOKEN_CHANNEL, CUL_FP8_SCALING_BLOCK128}) {
    compare(context, {6, 70, 160, scaling, kF16, true, 5}, 21);
    compare(context, {2, 72, 1936, scaling, kF32, true}, 22);
    const std::string shared_k = context.plan;
    compare(context, {250, 580, 144, scaling, kBf16}, 23);
    if (GetParam() == CUL_BACKEND_SIMT) {  // of 8 multiprocessors
      EXPECT_NE(shared_k.find("k shared by the 8 blocks of a cluster"), std::string::npos) << shared_k;
      EXPECT_NE(context.plan.find("256 x 128 tiles"), std::string::npos) << context.plan;
      compare(context, {20, 140, 400, scaling, kBf16}, 24, CUL_OP_BATCH_INVARIANT);
      EXPECT_NE(context.plan.find("64 x 128 tiles (one tile"), std::string::npos) << context.plan;
    }
  }
}

TEST_P(Fp8Gemm, RowsThatRepeatOrDescend) {
  Context context(GetParam());
  Problem p(context, {20, 72, 144, CUL_FP8_SCALING_TOKEN_CHANNEL, kF16}, 25);
  const auto compared = [&] {
    expect_product(context, cul_fp8_gemm, p.args, p.out, [&](int64_t row, int64_t column) { return p.reference(row, column); });
  };
  with_unusual_rows(p.a, compared);
  with_unusual_rows(p.b, compared);
}

TEST(Fp8Plan, FillsTheDeviceAndSaysWhy) {
  DeviceCaps caps;
  caps.backend = CUL_BACKEND_CUDA;
  caps.compute_major = 9;
  caps.multiprocessors = 132;
  const auto plan = [&](int64_t m, int64_t n, int64_t k, bool batch_invariant, std::string* reason) {
    Fp8GemmParams p{};
    p.m = m;
    p.n = n;
    p.k = p.lda = p.ldb = k;
    return plan_fp8_gemm(p, batch_invariant, caps, reason);
  };
  std::string reason;
  EXPECT_EQ(plan(4096, 7168, 16384, false, &reason).tile_tokens, 256);
  EXPECT_EQ(reason, "wgmma and tensor copies; 256 x 128 tiles: 896 blocks for 132 SMs; k in one piece");
  const F8Plan decode = plan(1, 4096, 4096, false, &reason);
  EXPECT_EQ(decode.tile_tokens, 16);
  EXPECT_GT(decode.splits, 1) << "32 tiles do not fill 132 SMs";
  EXPECT_EQ(decode.splits * decode.slices_per_split, 32);
  EXPECT_EQ(plan(64, 4096, 4096, false, &reason).tile_tokens, 64);
  EXPECT_EQ(plan(100, 4096, 4096, false, &reason).tile_tokens, 128);
  const F8Plan one = plan(1, 4096, 4096, true, &reason), many = plan(4096, 4096, 4096, true, &reason);
  EXPECT_EQ(one.tile_tokens, many.tile_tokens);
  EXPECT_EQ(one.slices_per_split, many.slices_per_split);

  Fp8GemmParams p{};
  p.m = 5;
  p.n = 64;
  p.k = 128;
  p.lda = 130;
  p.ldb = 128;
  EXPECT_EQ(plan_fp8_gemm(p, false, caps, &reason).workspace_bytes, 768u);
  EXPECT_NE(reason.find("rows of a are copied to multiples of 16 bytes first"), std::string::npos) << reason;
}

TEST(Fp8Plan, RefusesDevicesWithoutTheInstructions) {
  DeviceCaps caps;
  caps.backend = CUL_BACKEND_CUDA;
  caps.compute_major = 8;
  caps.name = "A100";
  const cul_op_call options{};
  try {
    require_wgmma(Call("fp8_gemm", caps, options));
    FAIL();
  } catch (const Refusal& refusal) {
    EXPECT_EQ(refusal.status(), CUL_ARCH);
    EXPECT_STREQ(refusal.what(), "fp8_gemm: the device is A100 of compute capability 8.0; the kernel needs 9.0 (wgmma)");
  }
}

TEST_P(Fp8Gemm, TakesExtentsOfZero) {
  on_backend(GetParam(), [](Context& context) {
    for (const int32_t scaling : {CUL_FP8_SCALING_TENSOR, CUL_FP8_SCALING_TOKEN_CHANNEL, CUL_FP8_SCALING_BLOCK128}) {
      compare(context, {0, 64, 128, scaling, kBf16}, 1);
      compare(context, {5, 0, 128, scaling, kBf16}, 1);
      compare(context, {5, 40, 0, scaling, kBf16, true}, 1);
    }
  });
}

// One row at a time gives the bits of all rows together.
TEST_P(Fp8Gemm, BatchInvariantRowsDependOnThemselvesAlone) {
  on_backend(GetParam(), [](Context& context) {
    Problem all(context, {35, 136, 288, CUL_FP8_SCALING_BLOCK128, kF32}, 7);
    ASSERT_EQ(context.run(cul_fp8_gemm, all.args, CUL_OP_BATCH_INVARIANT), CUL_OK) << cul_last_error();
    all.out.download();
    for (const int64_t row : {0, 11, 34}) {
      Problem one(context, {1, 136, 288, CUL_FP8_SCALING_BLOCK128, kF32}, 7);
      one.a.fill([&](int64_t, int64_t k) { return all.a.get(row, k); });
      one.b.fill([&](int64_t n, int64_t k) { return all.b.get(n, k); });
      one.a_scale.fill([&](int64_t, int64_t k) { return all.a_scale.get(row, k); });
      one.b_scale.fill([&](int64_t n, int64_t k) { return all.b_scale.get(n, k); });
      ASSERT_EQ(context.run(cul_fp8_gemm, one.args, CUL_OP_BATCH_INVARIANT), CUL_OK) << cul_last_error();
      one.out.download();
      for (int64_t n = 0; n < 136; ++n) ASSERT_EQ(one.out.get(0, n), all.out.get(row, n)) << row << ", " << n;
    }
  });
}

// A NaN in a scale or an operand reaches what it belongs to and nothing else.
TEST_P(Fp8Gemm, CarriesNaN) {
  on_backend(GetParam(), [](Context& context) {
    Problem p(context, {20, 140, 256, CUL_FP8_SCALING_BLOCK128, kF32}, 9);
    p.a.set(3, 200, std::nan(""));
    p.b.set(7, 5, std::nan(""));
    p.a_scale.set(4, 1, std::nan(""));
    p.b_scale.set(1, 0, std::nan(""));
    for (DeviceTensor* t : {&p.a, &p.b, &p.a_scale, &p.b_scale}) t->upload();
    ASSERT_EQ(context.run(cul_fp8_gemm, p.args), CUL_OK) << cul_last_error();
    p.out.download();
    for (int64_t r = 0; r < 20; ++r)
      for (int64_t n = 0; n < 140; ++n)
        ASSERT_EQ(std::isnan(p.out.get(r, n)), r == 3 || r == 4 || n == 7 || n >= 128) << r << ", " << n;
  });
}

TEST_P(Fp8Gemm, RefusesWhatTheContractRefuses) {
  Context context(GetParam());
  const auto status = [&](const Case& c, const std::function<void(Problem&)>& change) {
    Problem p(context, c, 1);
    change(p);
    return context.run(cul_fp8_gemm, p.args);
  };
  const Case plain{4, 16, 128, CUL_FP8_SCALING_TENSOR, kBf16, true}, blocks{4, 130, 256, CUL_FP8_SCALING_BLOCK128, kBf16};
  EXPECT_EQ(status(plain, [](Problem&) {}), CUL_OK);
  DeviceTensor narrow(context, kF8, {16, 64}), u8(context, kU8, {16, 128}), half_bias(context, kF16, {16}), short_bias(context, kBf16, {15}),
      one(context, kF32, {1}), half_scale(context, kF16, {1}), wide(context, kBf16, {4, 17}), i8_out(context, kI8, {4, 16});
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.b = &narrow.tensor; }), CUL_SHAPE);
  EXPECT_NE(std::string(cul_last_error()).find("fp8_gemm: a is [4, 128] but b is [16, 64]"), std::string::npos) << cul_last_error();
  EXPECT_EQ(status({4, 16, 24, CUL_FP8_SCALING_TENSOR, kBf16}, [](Problem&) {}), CUL_SHAPE);
  EXPECT_NE(std::string(cul_last_error()).find("K = 24 must be a multiple of 16"), std::string::npos) << cul_last_error();
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.b = &u8.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.bias = &half_bias.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.bias = &short_bias.tensor; }), CUL_SHAPE);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.a_scale = &half_scale.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.c = &wide.tensor; }), CUL_SHAPE);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.c = &i8_out.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.scaling = 3; }), CUL_RANGE);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.scaling = CUL_FP8_SCALING_TOKEN_CHANNEL; }), CUL_SHAPE);
  EXPECT_EQ(status(blocks, [&](Problem& p) { p.args.b_scale = &one.tensor; }), CUL_SHAPE);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.a = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(status(plain, [&](Problem& p) { p.args.b_scale = nullptr; }), CUL_NULL_POINTER);
}

}  // namespace
}  // namespace culebra::testing

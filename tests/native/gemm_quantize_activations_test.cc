// quantize_activations on every backend that is here: the same bits as the formula, whatever the shape and stride.
#include "gemm_harness.h"

#include "ops/gemm/quantize_activations.h"

namespace culebra::testing {
namespace {

class QuantizeActivations : public ::testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Backends, QuantizeActivations, ::testing::ValuesIn(backends_here()), backend_test_name);

struct Shape {
  int64_t m, k, pad_x, pad_q;
};

// What q must be, as a number; NaN where f8 says NaN.
double expected(float x, float scale, bool f8) {
  const float quotient = x / scale;
  if (f8) return to_float(from_float<float8_e4m3_t>(quotient));
  return std::isnan(quotient) ? 0 : std::clamp(std::nearbyint(double{quotient}), -128.0, 127.0);
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

void compare(Context& context, const Shape& shape, cul_dtype x_type, cul_dtype q_type, int32_t mode, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << shape.m << " x " << shape.k << " " << name_of(dtype_of(x_type)) << " -> " << name_of(dtype_of(q_type))
                                    << " mode " << mode);
  const bool f8 = dtype_of(q_type) == DType::f8e4m3;
  const int64_t block = mode == CUL_QUANTIZE_PER_BLOCK128 ? 128 : std::max<int64_t>(shape.k, 1);
  const int64_t blocks = mode == CUL_QUANTIZE_PER_BLOCK128 ? (shape.k + 127) / 128 : 1;
  DeviceTensor x(context, x_type, {shape.m, shape.k}, shape.pad_x), q(context, q_type, {shape.m, shape.k}, shape.pad_q),
      scales(context, kF32, {shape.m, blocks}, 3), scale(context, kF32, {1});
  std::mt19937 rng(seed);
  std::normal_distribution<double> normal;
  x.fill([&](int64_t r, int64_t c) {
    if (r == 1 && c < 300) return 0.0;                                  // a row of zeros, or a block of them
    if (c == 5 && r % 7 == 2) return std::nan("");
    if (c == 6 && r % 7 == 3) return -std::numeric_limits<double>::infinity();
    if (r == 5 && c > 200) return 1e-11 * normal(rng);                  // below the smallest scale
    if (r == 6) return c == 9 ? 3e38 : 1e36 * normal(rng);               // infinite as f16
    return r == 4 ? double(int(rng() % 255) - 127) + 0.5 : normal(rng) * std::exp(4 * normal(rng));
  });
  scale.fill([](int64_t, int64_t) { return 0.375; });
  cul_quantize_activations_args args{};
  args.x = &x.tensor;
  args.q = &q.tensor;
  (mode == CUL_QUANTIZE_STATIC ? args.scale : args.scales) = mode == CUL_QUANTIZE_STATIC ? &scale.tensor : &scales.tensor;
  args.mode = mode;
  ASSERT_EQ(context.run(cul_quantize_activations, args), CUL_OK) << cul_last_error();
  q.download();
  scales.download();
  EXPECT_TRUE(q.guards_untouched());
  EXPECT_TRUE(scales.guards_untouched());
  for (int64_t r = 0; r < shape.m; ++r)
    for (int64_t b = 0; b < blocks; ++b) {
      float s = 0.375f;
      if (mode != CUL_QUANTIZE_STATIC) {
        float amax = 0;
        for (int64_t c = b * block; c < std::min(shape.k, (b + 1) * block); ++c) {
          const float magnitude = std::fabs(static_cast<float>(x.get(r, c)));
          amax = magnitude > amax || std::isnan(magnitude) ? magnitude : amax;
          if (std::isnan(amax)) break;
        }
        s = amax / (f8 ? 448.0f : 127.0f);
        s = s <= 1e-12f ? 1e-12f : s;
        ASSERT_TRUE(same(scales.get(r, b), s)) << "scale " << r << ", " << b << ": " << scales.get(r, b) << " for " << s;
      }
      for (int64_t c = b * block; c < std::min(shape.k, (b + 1) * block); ++c)
        ASSERT_TRUE(same(q.get(r, c), expected(static_cast<float>(x.get(r, c)), s, f8)))
            << "q " << r << ", " << c << ": " << q.get(r, c) << " for " << expected(static_cast<float>(x.get(r, c)), s, f8);
    }
}

TEST_P(QuantizeActivations, GivesTheBitsOfTheFormula) {
  Context context(GetParam());
  uint32_t seed = 1;
  for (const Shape& shape : {Shape{9, 320, 0, 0}, Shape{5, 1, 0, 3}, Shape{6, 129, 7, 7}, Shape{3, 1032, 8, 16}})
    for (const cul_dtype x : {kF32, kF16, kBf16})
      for (const cul_dtype q : {kI8, kF8})
        for (const int32_t mode : {CUL_QUANTIZE_PER_TOKEN, CUL_QUANTIZE_PER_BLOCK128, CUL_QUANTIZE_STATIC})
          compare(context, shape, x, q, mode, seed++);
}

// Rows that do not fit the registers of a block of threads are read twice.
TEST_P(QuantizeActivations, TakesLongRows) {
  Context context(GetParam());
  compare(context, {2, 8192 + 24, 0, 0}, kF16, kI8, CUL_QUANTIZE_PER_TOKEN, 90);
  compare(context, {1, 32768 + 1000, 0, 0}, kBf16, kF8, CUL_QUANTIZE_PER_TOKEN, 91);
  compare(context, {1, 32768 + 1000, 0, 0}, kBf16, kF8, CUL_QUANTIZE_PER_BLOCK128, 92);
}

TEST_P(QuantizeActivations, SucceedsOnEmptyTensors) {
  Context context(GetParam());
  for (const int32_t mode : {CUL_QUANTIZE_PER_TOKEN, CUL_QUANTIZE_PER_BLOCK128, CUL_QUANTIZE_STATIC}) {
    compare(context, {0, 64, 0, 0}, kF16, kI8, mode, 1);
    compare(context, {3, 0, 0, 0}, kF16, kF8, mode, 1);
  }
}

TEST_P(QuantizeActivations, RefusesWhatTheContractRefuses) {
  Context context(GetParam());
  DeviceTensor x(context, kF16, {3, 256}), q(context, kI8, {3, 256}), scales(context, kF32, {3, 1}), blocks(context, kF32, {3, 2}),
      scale(context, kF32, {1}), narrow(context, kI8, {3, 255}), u8(context, kU8, {3, 256}), i32(context, kI32, {3, 256}),
      half_scales(context, kF16, {3, 1}), flat(context, kF16, {768});
  const auto status = [&](const DeviceTensor* from, const DeviceTensor* to, const DeviceTensor* s, const DeviceTensor* given, int32_t mode) {
    const auto of = [](const DeviceTensor* t) { return t ? &t->tensor : nullptr; };
    cul_quantize_activations_args args{};
    args.x = of(from);
    args.q = of(to);
    args.scales = of(s);
    args.scale = of(given);
    args.mode = mode;
    return context.run(cul_quantize_activations, args);
  };
  EXPECT_EQ(status(&x, &q, &scales, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_OK);
  EXPECT_EQ(status(&x, &q, &blocks, nullptr, CUL_QUANTIZE_PER_BLOCK128), CUL_OK);
  EXPECT_EQ(status(&x, &q, nullptr, &scale, CUL_QUANTIZE_STATIC), CUL_OK);
  EXPECT_EQ(status(&x, &q, nullptr, nullptr, CUL_QUANTIZE_STATIC), CUL_NULL_POINTER);
  EXPECT_EQ(status(&x, &q, nullptr, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_NULL_POINTER);
  EXPECT_EQ(status(nullptr, &q, &scales, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_NULL_POINTER);
  EXPECT_EQ(status(&x, nullptr, &scales, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_NULL_POINTER);
  EXPECT_EQ(status(&x, &q, &scales, &scale, CUL_QUANTIZE_PER_TOKEN), CUL_UNSUPPORTED);
  EXPECT_EQ(status(&x, &q, &scales, &scale, CUL_QUANTIZE_STATIC), CUL_UNSUPPORTED);
  EXPECT_EQ(status(&x, &q, &scales, nullptr, 3), CUL_RANGE);
  EXPECT_EQ(status(&x, &q, &blocks, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_SHAPE);
  EXPECT_EQ(status(&x, &q, &scales, nullptr, CUL_QUANTIZE_PER_BLOCK128), CUL_SHAPE);
  EXPECT_EQ(status(&x, &narrow, &scales, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_SHAPE);
  EXPECT_NE(std::string(cul_last_error()).find("q is [3, 255]; it must be [M,K], with dimension 1 = 256"), std::string::npos) << cul_last_error();
  EXPECT_EQ(status(&flat, &q, &scales, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_SHAPE);
  EXPECT_EQ(status(&x, &u8, &scales, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_DTYPE);
  EXPECT_EQ(status(&i32, &q, &scales, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_DTYPE);
  EXPECT_EQ(status(&x, &q, &half_scales, nullptr, CUL_QUANTIZE_PER_TOKEN), CUL_DTYPE);
}

}  // namespace
}  // namespace culebra::testing

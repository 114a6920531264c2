// Casts between all types, plans of elementwise walks, refusals and validation of the glue family.
#include "backends/backend.h"
#include "glue_harness.h"
#include "ops/glue/elementwise.h"

namespace culebra {
namespace {

using namespace glue_testing;

// What a cast gives, computed without the library: in double, by search for the nearest number of the type.
double cast_reference(double x, DType from, DType to) {
  const bool float_source = from == DType::f32 || from == DType::f16 || from == DType::bf16 || from == DType::f8e4m3;
  const auto whole = [&](double low, double high, int bits) {
    if (std::isnan(x)) return 0.0;
    if (float_source) return std::clamp(std::trunc(x), low, high);
    const double range = std::ldexp(1, bits), r = x - std::floor(x / range) * range;
    return r > high ? r - range : r;
  };
  const auto nearest = [&](int precision, int least_exponent, double largest, bool saturates) {
    if (std::isnan(x) || x == 0) return x;
    if (std::isinf(x)) return saturates ? std::copysign(largest, x) : x;
    const int exponent = std::max(std::ilogb(x), least_exponent);
    const double unit = std::ldexp(1, exponent - precision + 1), r = std::nearbyint(x / unit) * unit;
    return std::abs(r) > largest ? std::copysign(saturates ? largest : kInfinity, x) : r;
  };
  switch (to) {
    case DType::f32: return nearest(24, -126, std::numeric_limits<float>::max(), false);
    case DType::f16: return nearest(11, -14, 65504, false);
    case DType::bf16: return nearest(8, -126, 0x1.fep127, false);
    case DType::f8e4m3: return nearest(4, -6, 448, true);
    case DType::i8: return whole(-128, 127, 8);
    case DType::u8: return whole(0, 255, 8);
    case DType::i32: return whole(-2147483648.0, 2147483647, 32);
    case DType::i64: return std::isnan(x) ? 0 : std::clamp(std::trunc(x), -0x1p63, 0x1p63);
    default: return x != 0 && !std::isnan(x);
  }
}

TEST(GlueCast, EveryPairOfTypes) {
  const DType types[] = {DType::f32, DType::f16, DType::bf16, DType::f8e4m3, DType::i8, DType::u8, DType::i32, DType::i64, DType::boolean};
  std::vector<double> values = {0,   -0.0, 1,     -1,   0.5,  -0.5,   1.5,  2.5,      127,      128,        129,        255,         256,
                                300, 448,  449,   464,  465,  1000,   -300, 65504,    65519,    65520,      65536,      16777217,    16842753,
                                -1e9, 2e9,  3e9,   -3e9, 1e10, 1e18,   1e19, -1e19,    1e38,     0x1.02p8,   0x1.01p30,  0x1.010001p30,
                                1e-3, 1e-7, 6e-8, 1e-40, 257,  65793,  16908289, kInfinity, -kInfinity, std::nan("")};
  for (const int32_t backend : backends()) {
    Machine m(backend);
    for (DType from : types)
      for (DType to : types) {
        SCOPED_TRACE(testing::Message() << cul_backend_name(backend) << " " << name_of(from) << " to " << name_of(to));
        const auto n = static_cast<int64_t>(values.size());
        Tensor x(m, from, {n}), y(m, to, {n});
        const double limit = from == DType::i8 ? 127 : from == DType::u8 ? 255 : from == DType::i32 ? 2147483647 : from == DType::boolean ? 1 : 9e15;
        const bool integers = from == DType::i8 || from == DType::u8 || from == DType::i32 || from == DType::i64 || from == DType::boolean;
        x.fill([&](int64_t i) {
          const double v = values[static_cast<size_t>(i)];
          if (!integers) return v;
          const bool is_signed = from != DType::u8 && from != DType::boolean;
          return std::isnan(v) ? 0.0 : std::trunc(std::clamp(v, is_signed ? -limit : 0, limit));
        });
        auto args = args_of<cul_cast_args>();
        args.x = x, args.y = y;
        run(m, cul_cast, args, {&y});
        for (int64_t i = 0; i < n; ++i) {
          const double want = cast_reference(x[i], from, to);
          EXPECT_TRUE(std::isnan(want) ? std::isnan(y[i]) : y[i] == want) << x[i] << " gives " << y[i] << ", not " << want;
        }
      }
  }
}

TEST(GlueWalk, MergesWhatLiesTogether) {
  Machine m(CUL_BACKEND_CPU);
  const DeviceCaps caps = [&] {
    DeviceCaps c;
    c.id = m.id;
    return c;
  }();
  const cul_op_call options{};
  const Call call("copy_strided", caps, options);
  const auto walk = [&](std::vector<int64_t> shape, std::vector<int64_t> x_strides, std::vector<int64_t> y_strides) {
    Tensor x(m, DType::f32, shape, x_strides), y(m, DType::f32, shape, y_strides);
    auto args = args_of<cul_copy_strided_args>();
    args.x = x, args.y = y;
    return check_copy_strided(call, args).walk;
  };
  EXPECT_EQ(walk({4, 5, 6}, {30, 6, 1}, {30, 6, 1}).columns, 120);
  EXPECT_EQ(walk({4, 5, 6}, {30, 6, 1}, {30, 6, 1}).rows, 1);
  EXPECT_EQ(walk({4, 5, 6}, {40, 6, 1}, {30, 6, 1}).columns, 30);
  EXPECT_EQ(walk({4, 5}, {1, 4}, {1, 4}).columns, 20) << "a transposed pair is one run";
  EXPECT_EQ(walk({4, 5}, {1, 4}, {5, 1}).columns, 5);
  EXPECT_EQ(walk({4, 1, 5}, {5, 999, 1}, {5, 7, 1}).columns, 20);
  EXPECT_EQ(walk({4, 0}, {1, 1}, {1, 1}).rows, 0);
}

TEST(GlueRefusals, NameWhatIsWrong) {
  Machine m(CUL_BACKEND_CPU);
  Tensor x(m, DType::bf16, {4, 64}), y(m, DType::bf16, {4, 64}), w(m, DType::bf16, {63}), w64(m, DType::bf16, {64}), f(m, DType::f32, {4, 64}),
      narrow(m, DType::bf16, {4, 32}), overlapping(m, DType::bf16, {4, 64}, {32, 1}), zero_stride(m, DType::bf16, {4, 64}, {0, 1});
  const auto rms = [&](const cul_tensor* px, const cul_tensor* pw, const cul_tensor* py, float eps = 1e-6f) {
    auto args = args_of<cul_rms_norm_args>();
    args.x = px, args.weight = pw, args.y = py, args.eps = eps;
    return cul_rms_norm(m.stream, &args);
  };
  EXPECT_EQ(rms(x, w, y), CUL_SHAPE);
  EXPECT_STREQ(cul_last_error(), "rms_norm: weight is [63] but x is [4, 64]; weight must be [D], D being x's last dimension");
  EXPECT_EQ(rms(x, nullptr, y), CUL_NULL_POINTER);
  EXPECT_EQ(rms(x, w64, f), CUL_DTYPE);
  EXPECT_EQ(rms(x, w64, narrow), CUL_SHAPE);
  EXPECT_EQ(rms(x, w64, y, -1), CUL_RANGE);
  EXPECT_EQ(rms(x, w64, y, std::nanf("")), CUL_RANGE);
  EXPECT_EQ(rms(x, w64, overlapping), CUL_STRIDE);
  EXPECT_EQ(rms(x, w64, zero_stride), CUL_STRIDE);
  EXPECT_EQ(rms(zero_stride, w64, y), CUL_OK) << "an input may repeat a row";

  auto with_residual = args_of<cul_rms_norm_args>();
  with_residual.x = x, with_residual.weight = w64, with_residual.y = y, with_residual.residual_out = x;
  EXPECT_EQ(cul_rms_norm(m.stream, &with_residual), CUL_NULL_POINTER);
  with_residual.residual = narrow;
  EXPECT_EQ(cul_rms_norm(m.stream, &with_residual), CUL_SHAPE);
  with_residual.residual = x, with_residual.residual_out = y;
  EXPECT_EQ(cul_rms_norm(m.stream, &with_residual), CUL_UNSUPPORTED) << "two outputs in one place";

  auto softmax = args_of<cul_softmax_args>();
  softmax.x = x, softmax.y = x;
  EXPECT_EQ(cul_softmax(m.stream, &softmax), CUL_UNSUPPORTED);

  auto gelu = args_of<cul_gelu_mul_args>();
  gelu.gate = x, gelu.up = x, gelu.y = y, gelu.form = 2;
  EXPECT_EQ(cul_gelu_mul(m.stream, &gelu), CUL_RANGE);

  Tensor empty(m, DType::f32, {2, 0}), ids(m, DType::i32, {2}), ids64(m, DType::i64, {2});
  auto argmax = args_of<cul_argmax_args>();
  argmax.x = empty, argmax.ids = ids;
  EXPECT_EQ(cul_argmax(m.stream, &argmax), CUL_SHAPE);
  Tensor two(m, DType::f32, {2, 3});
  argmax.x = two, argmax.ids = ids64;
  EXPECT_EQ(cul_argmax(m.stream, &argmax), CUL_DTYPE);

  Tensor deep(m, DType::f32, {1, 1, 1, 1, 1, 1, 2});
  auto copy = args_of<cul_copy_strided_args>();
  copy.x = deep, copy.y = deep;
  EXPECT_EQ(cul_copy_strided(m.stream, &copy), CUL_SHAPE);
}

TEST(GlueValidation, FailsTheDeviceAtABadIndex) {
  for (const int32_t backend : backends()) {
    for (bool bad : {false, true}) {
      Machine m(backend);
      Tensor table(m, DType::f32, {5, 8}), ids(m, DType::i64, {3}), y(m, DType::f32, {3, 8});
      table.fill([](int64_t i) { return static_cast<double>(i); });
      ids.fill([&](int64_t t) { return t == 1 ? -1 : t == 2 && bad ? 5 : 4; });
      auto args = args_of<cul_embedding_args>();
      args.table = table, args.ids = ids, args.y = y, args.call.flags = CUL_OP_VALIDATE;
      ASSERT_EQ(cul_embedding(m.stream, &args), CUL_OK) << cul_last_error();
      const cul_status status = cul_stream_synchronize(m.stream);
      EXPECT_EQ(status, bad ? CUL_DEVICE_ERROR : CUL_OK);
      EXPECT_TRUE(!bad || std::string(cul_last_error()).find("embedding: ids[2] is 5; the table has rows 0 to 4") != std::string::npos) << cul_last_error();
    }
  }
}

}  // namespace
}  // namespace culebra

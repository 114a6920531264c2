// w4a8_gemm on every backend that has it, against sums in double precision of the values as stored.
#include <memory>

#include "gemm_f8_harness.h"

namespace culebra::testing {
namespace {

struct Case {
  int64_t m, n, k;
  int32_t epilogue;
  cul_dtype out;
  int64_t pad = 0;  // elements between rows
};

// Weights of a checkpoint, packed for the context's device, and everything else that a call needs.
struct Problem {
  Case c;
  int64_t groups;
  DeviceTensor a, a_scale, q, group_scale, channel_scale, out;
  std::unique_ptr<DeviceTensor> packed, packed_scales;
  cul_w4a8_gemm_args args{};

  Problem(Context& context, const Case& c, uint32_t seed)
      : c(c),
        groups((c.k + 127) / 128),
        a(context, kF8, {c.m, c.k}, c.pad),
        a_scale(context, kF32, {c.m}),
        q(context, kI8, {c.n, c.k}),
        group_scale(context, kF8, {c.n, groups}),
        channel_scale(context, kF32, {c.n}),
        out(context, c.out, {c.m, c.epilogue == CUL_EPILOGUE_SILU_MUL ? c.n / 2 : c.n}, c.pad) {
    std::mt19937 rng(seed);
    std::normal_distribution<double> normal;
    a.fill([&](int64_t, int64_t) { return normal(rng); });
    q.fill([&](int64_t, int64_t) { return static_cast<double>(rng() % 16) - 8; });
    group_scale.fill([&](int64_t, int64_t) { return std::exp(normal(rng)) * (rng() % 8 ? 1.0 : 300.0); });  // 8 x some exceed e4m3
    const auto scale = [&](int64_t, int64_t) { return 0.01 * std::exp(normal(rng)); };
    a_scale.fill(scale);
    channel_scale.fill(scale);

    cul_checkpoint checkpoint{};
    checkpoint.struct_size = sizeof checkpoint;
    checkpoint.format = CUL_FORMAT_PLAIN;
    checkpoint.bits = 4;
    checkpoint.group = 128;
    checkpoint.operand = CUL_OPERAND_BYTE;
    checkpoint.n = c.n;
    checkpoint.k = c.k;
    checkpoint.qweight = &q.tensor;
    checkpoint.scales = &group_scale.tensor;
    cul_pack_plan_result plan{};
    plan.struct_size = sizeof plan;
    EXPECT_EQ(cul_pack_plan(context.device, &checkpoint, &plan, nullptr, nullptr), CUL_OK) << cul_last_error();
    packed = std::make_unique<DeviceTensor>(context, kU8, std::vector<int64_t>{plan.packed_bytes});
    packed_scales = std::make_unique<DeviceTensor>(context, kF8, std::vector<int64_t>{plan.groups, plan.scale_columns});
    cul_pack_weights_args pack{};
    pack.checkpoint = &checkpoint;
    pack.packed = &packed->tensor;
    pack.packed_scales = &packed_scales->tensor;
    pack.packed_group = plan.group;
    EXPECT_EQ(context.run(cul_pack_weights, pack), CUL_OK) << cul_last_error();

    args.a = &a.tensor;
    args.a_scale = &a_scale.tensor;
    args.packed = &packed->tensor;
    args.packed_scales = &packed_scales->tensor;
    args.channel_scale = &channel_scale.tensor;
    args.c = &out.tensor;
    args.n = c.n;
    args.k = c.k;
    args.epilogue = c.epilogue;
  }

  double product(int64_t row, int64_t column) const {
    double sum = 0;
    for (int64_t k = 0; k < c.k; ++k) sum += a.get(row, k) * q.get(column, k) * group_scale.get(column, k / 128);
    return sum * a_scale.get(0, row) * channel_scale.get(0, column);
  }
  double reference(int64_t row, int64_t column) const {
    const double x = product(row, column);
    return c.epilogue == CUL_EPILOGUE_SILU_MUL ? x / (1 + std::exp(-x)) * product(row, column + c.n / 2) : x;
  }
};

void compare(Context& context, const Case& c, uint32_t seed, uint32_t flags = 0) {
  SCOPED_TRACE(::testing::Message() << c.m << " x " << c.n << " x " << c.k << " epilogue " << c.epilogue << " " << name_of(dtype_of(c.out))
                                    << " pad " << c.pad);
  Problem p(context, c, seed);
  expect_product(context, cul_w4a8_gemm, p.args, p.out, [&](int64_t row, int64_t column) { return p.reference(row, column); }, flags);
}

class W4A8Gemm : public ::testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Backends, W4A8Gemm, ::testing::ValuesIn(backends_here()), backend_test_name);

TEST_P(W4A8Gemm, MatchesDoublePrecision) {
  on_backend(GetParam(), [](Context& context) {
    compare(context, {1, 136, 256, CUL_EPILOGUE_NONE, kBf16}, 1);
    compare(context, {3, 192, 384, CUL_EPILOGUE_SILU_MUL, kF16, 16}, 2);   // halves that are not blocks of 64
    compare(context, {5, 256, 200, CUL_EPILOGUE_SILU_MUL, kBf16, 3}, 3);   // paired blocks; a partial group; rows at odd addresses
    compare(context, {17, 70, 130, CUL_EPILOGUE_NONE, kF16, 7}, 4);
    compare(context, {40, 64, 128, CUL_EPILOGUE_NONE, kF16}, 5);
    compare(context, {70, 320, 128, CUL_EPILOGUE_NONE, kBf16, 16}, 6);
    compare(context, {0, 64, 128, CUL_EPILOGUE_SILU_MUL, kBf16}, 7);
  });
}

TEST_P(W4A8Gemm, RowsThatRepeatOrDescend) {
  Context context(GetParam());
  Problem p(context, {20, 72, 128, CUL_EPILOGUE_NONE, kF16}, 8);
  with_unusual_rows(p.a, [&] {
    expect_product(context, cul_w4a8_gemm, p.args, p.out, [&](int64_t row, int64_t column) { return p.reference(row, column); });
  });
}

TEST_P(W4A8Gemm, SharesKAmongTheBlocksOfACluster) {
  on_backend(GetParam(), [](Context& context) {
    compare(context, {2, 72, 2000, CUL_EPILOGUE_NONE, kF16}, 11);
    if (context.id.type == CUL_DEVICE_SIMT) {
      EXPECT_NE(context.plan.find("k shared by the 8 blocks of a cluster"), std::string::npos) << context.plan;
    }
    compare(context, {9, 256, 1540, CUL_EPILOGUE_SILU_MUL, kBf16}, 12, CUL_OP_BATCH_INVARIANT);
  });
}

// Every code in every place of a word, with scales whose products would leave the range of e4m3.
TEST_P(W4A8Gemm, MultipliesEveryCodeExactly) {
  on_backend(GetParam(), [](Context& context) {
    for (int64_t place = 0; place < 32; place += 5) {
      Problem p(context, {1, 64, 128, CUL_EPILOGUE_NONE, kF16}, 1);
      p.a.fill([&](int64_t, int64_t k) { return k == place + 32 ? 1.0 : 0.0; });
      p.a_scale.fill([](int64_t, int64_t) { return 1.0; });
      p.channel_scale.fill([](int64_t, int64_t) { return 1.0; });
      ASSERT_EQ(context.run(cul_w4a8_gemm, p.args), CUL_OK) << cul_last_error();
      p.out.download();
      for (int64_t n = 0; n < 64; ++n) ASSERT_EQ(p.out.get(0, n), p.q.get(n, place + 32) * p.group_scale.get(n, 0)) << place << ", " << n;
    }
  });
}

TEST_P(W4A8Gemm, BatchInvariantRowsDependOnThemselvesAlone) {
  on_backend(GetParam(), [](Context& context) {
    Problem all(context, {35, 128, 256, CUL_EPILOGUE_NONE, kBf16}, 7);
    ASSERT_EQ(context.run(cul_w4a8_gemm, all.args, CUL_OP_BATCH_INVARIANT), CUL_OK) << cul_last_error();
    all.out.download();
    for (const int64_t row : {0, 13, 34}) {
      Problem one(context, {1, 128, 256, CUL_EPILOGUE_NONE, kBf16}, 7);
      one.a.fill([&](int64_t, int64_t k) { return all.a.get(row, k); });
      one.a_scale.fill([&](int64_t, int64_t) { return all.a_scale.get(0, row); });
      one.args.packed = &all.packed->tensor;
      one.args.packed_scales = &all.packed_scales->tensor;
      one.args.channel_scale = &all.channel_scale.tensor;
      ASSERT_EQ(context.run(cul_w4a8_gemm, one.args, CUL_OP_BATCH_INVARIANT), CUL_OK) << cul_last_error();
      one.out.download();
      for (int64_t n = 0; n < 128; ++n) ASSERT_EQ(one.out.get(0, n), all.out.get(row, n)) << row << ", " << n;
    }
  });
}

TEST_P(W4A8Gemm, CarriesNaN) {
  on_backend(GetParam(), [](Context& context) {
    Problem p(context, {9, 130, 256, CUL_EPILOGUE_NONE, kBf16}, 9);
    p.a.set(3, 200, std::nan(""));
    p.a_scale.set(0, 4, std::nan(""));
    p.channel_scale.set(0, 129, std::nan(""));
    p.packed_scales->download();
    p.packed_scales->set(1, 7, std::nan(""));
    for (DeviceTensor* t : {&p.a, &p.a_scale, &p.channel_scale, p.packed_scales.get()}) t->upload();
    ASSERT_EQ(context.run(cul_w4a8_gemm, p.args), CUL_OK) << cul_last_error();
    p.out.download();
    for (int64_t r = 0; r < 9; ++r)
      for (int64_t n = 0; n < 130; ++n) ASSERT_EQ(std::isnan(p.out.get(r, n)), r == 3 || r == 4 || n == 7 || n == 129) << r << ", " << n;
  });
}

TEST_P(W4A8Gemm, RefusesWhatTheContractRefuses) {
  Context context(GetParam());
  const auto status = [&](int32_t epilogue, const std::function<void(Problem&)>& change) {
    Problem p(context, {4, 64, 256, epilogue, kBf16}, 1);
    change(p);
    return context.run(cul_w4a8_gemm, p.args);
  };
  constexpr int32_t kNone = CUL_EPILOGUE_NONE;
  DeviceTensor narrow(context, kF8, {4, 128}), half(context, kF16, {4, 256}), scale(context, kF32, {5}), half_scale(context, kF16, {4}),
      groups(context, kF8, {3, 64}), half_groups(context, kF16, {2, 64}), f32(context, kF32, {4, 64}), bytes(context, kU8, {64});
  EXPECT_EQ(status(kNone, [](Problem&) {}), CUL_OK);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.a = &narrow.tensor; }), CUL_SHAPE);
  EXPECT_NE(std::string(cul_last_error()).find("w4a8_gemm: a is [4, 128] but the weights are [64, 256]"), std::string::npos) << cul_last_error();
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.packed_scales = &groups.tensor; }), CUL_SHAPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.a_scale = &scale.tensor; }), CUL_SHAPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.channel_scale = &scale.tensor; }), CUL_SHAPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.packed = &bytes.tensor; }), CUL_SHAPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.k = 0; }), CUL_SHAPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.a = &half.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.a_scale = &half_scale.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.packed_scales = &half_groups.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.c = &f32.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.epilogue = CUL_EPILOGUE_SILU; }), CUL_RANGE);
  EXPECT_EQ(status(CUL_EPILOGUE_SILU_MUL, [&](Problem& p) { p.args.c = &f32.tensor; }), CUL_DTYPE);
  EXPECT_EQ(status(CUL_EPILOGUE_SILU_MUL, [&](Problem& p) { p.args.epilogue = kNone; }), CUL_SHAPE);
  EXPECT_EQ(status(kNone, [&](Problem& p) { p.args.channel_scale = nullptr; }), CUL_NULL_POINTER);
}

}  // namespace
}  // namespace culebra::testing

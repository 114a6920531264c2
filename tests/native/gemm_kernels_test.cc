// w4a16_gemm and gemm through the C ABI on every backend that runs here, against sums in double over the exact operands:
// every tile, group size, epilogue, split, padding and dtype that a plan can choose.
#include <algorithm>
#include <limits>

#include "gemm_harness.h"

namespace culebra {
namespace {

using namespace culebra::testing;

constexpr double kBoundF16 = 2e-3, kBoundBf16 = 5e-3, kBoundF32 = 1e-5;

double bound_of(cul_dtype type) { return type.bits == 32 ? kBoundF32 : type.code == CUL_BFLOAT ? kBoundBf16 : kBoundF16; }

// rms(out - ref) / rms(ref); NaN where one of them is not finite and the other is.
double rms_ratio(const DeviceTensor& out, const std::vector<double>& ref) {
  double error = 0, scale = 0;
  for (int64_t r = 0; r < out.rows(); ++r)
    for (int64_t c = 0; c < out.columns(); ++c) {
      const double want = ref[static_cast<size_t>(r * out.columns() + c)], got = out.get(r, c);
      if (!std::isfinite(want) || !std::isfinite(got)) {
        if (std::isfinite(want) != std::isfinite(got)) return NAN;
        continue;
      }
      error += (got - want) * (got - want);
      scale += want * want;
    }
  return scale > 0 ? std::sqrt(error / scale) : std::sqrt(error);
}

double silu(double x) { return x / (1 + std::exp(-x)); }

class GemmKernelTest : public ::testing::TestWithParam<DeviceChoice> {};

struct Int4Case {
  int64_t m, n, k;
  int32_t group;
  cul_dtype type = kF16, scale_type = kF16;
  bool zeros = false, bias = false, act_order = false, uneven = false;
  int32_t epilogue = CUL_EPILOGUE_NONE;
  int64_t pad = 0;
  bool batch_invariant = false;
  double scale = 1;  // magnitude of the scales
  bool nan_scale = false;  // column 3's first
};

// A packed matrix made from plain integers, its exact values, and calls on it.
class Int4Problem {
 public:
  Int4Problem(Context& context, const Int4Case& c, uint32_t seed) : context_(context), case_(c), rng_(seed) {
    const int64_t n = c.n, k = c.k, groups = c.group == -1 ? 1 : (k + c.group - 1) / c.group;
    const auto draw = [&](int64_t below) { return std::uniform_int_distribution<int64_t>(0, below - 1)(rng_); };
    DeviceTensor q(context, kU8, {n, k}), scales(context, c.scale_type, {n, groups}), zeros(context, kU8, {n, groups}), g_idx(context, kI32, {k});
    q.fill([&](auto, auto) { return static_cast<double>(draw(16)); });
    scales.fill([&](auto row, auto g) {
      const double scale = c.scale * (1 + static_cast<double>(draw(1000)) / 500);
      return c.nan_scale && row == 3 && g == 0 ? NAN : scale;
    });
    zeros.fill([&](auto, auto) { return static_cast<double>(draw(16)); });
    std::vector<int32_t> order(static_cast<size_t>(k));
    for (int64_t j = 0; j < k; ++j)
      order[static_cast<size_t>(j)] = static_cast<int32_t>(c.uneven ? draw(groups) : j / (c.group == -1 ? k : c.group));
    if (c.act_order) std::shuffle(order.begin(), order.end(), rng_);
    g_idx.fill([&](auto, auto j) { return order[static_cast<size_t>(j)]; });
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < k; ++j) {
        const int64_t g = order[static_cast<size_t>(j)];
        weights_.push_back((q.get(i, j) - (c.zeros ? zeros.get(i, g) : 8)) * scales.get(i, g));
      }
    cul_tensor host_q = q.host(), host_scales = scales.host(), host_zeros = zeros.host(), host_index = g_idx.host();
    cul_checkpoint checkpoint{sizeof checkpoint, CUL_FORMAT_PLAIN, 4, c.group, 0, 0, 0, 0, n, k, &host_q, &host_scales, c.zeros ? &host_zeros : nullptr,
                              c.act_order ? &host_index : nullptr};
    plan_.struct_size = sizeof plan_;
    EXPECT_EQ(cul_pack_plan(context.device, &checkpoint, &plan_, nullptr, nullptr), CUL_OK) << cul_last_error();
    std::vector<int32_t> perm(static_cast<size_t>(plan_.k_padded)), source(static_cast<size_t>(plan_.groups));
    EXPECT_EQ(cul_pack_plan(context.device, &checkpoint, &plan_, perm.data(), source.data()), CUL_OK);
    perm_ = std::make_unique<DeviceTensor>(context, kI32, std::vector<int64_t>{plan_.k_padded});
    perm_->fill([&](auto, auto j) { return perm[static_cast<size_t>(j)]; });
    DeviceTensor device_source(context, kI32, {plan_.groups});
    device_source.fill([&](auto, auto j) { return source[static_cast<size_t>(j)]; });
    packed_ = std::make_unique<DeviceTensor>(context, kU8, std::vector<int64_t>{plan_.packed_bytes});
    scales_ = std::make_unique<DeviceTensor>(context, c.scale_type, std::vector<int64_t>{plan_.groups, plan_.n_padded});
    zeros_ = std::make_unique<DeviceTensor>(context, kU8, std::vector<int64_t>{plan_.groups, plan_.n_padded});
    bias_ = std::make_unique<DeviceTensor>(context, c.type, std::vector<int64_t>{n});
    bias_->fill([&](auto, auto) { return c.scale * static_cast<double>(draw(200) - 100); });
    checkpoint.qweight = &q.tensor, checkpoint.scales = &scales.tensor, checkpoint.zeros = c.zeros ? &zeros.tensor : nullptr;
    checkpoint.g_idx = c.act_order ? &g_idx.tensor : nullptr;
    cul_pack_weights_args pack{};
    pack.checkpoint = &checkpoint;
    if (plan_.permuted) pack.perm = &perm_->tensor, pack.group_source = &device_source.tensor;
    pack.packed = &packed_->tensor, pack.packed_scales = &scales_->tensor, pack.packed_zeros = c.zeros ? &zeros_->tensor : nullptr;
    pack.packed_group = plan_.group;
    EXPECT_EQ(context.run(cul_pack_weights, pack), CUL_OK) << cul_last_error();
  }

  cul_status multiply(DeviceTensor& a, DeviceTensor& c) {
    cul_w4a16_gemm_args args{};
    args.a = &a.tensor, args.packed = &packed_->tensor, args.packed_scales = &scales_->tensor;
    args.packed_zeros = case_.zeros ? &zeros_->tensor : nullptr;
    args.perm = plan_.permuted ? &perm_->tensor : nullptr;
    args.bias = case_.bias ? &bias_->tensor : nullptr;
    args.c = &c.tensor, args.n = case_.n, args.k = case_.k, args.packed_group = plan_.group, args.epilogue = case_.epilogue;
    const cul_status status = context_.run(cul_w4a16_gemm, args, case_.batch_invariant ? CUL_OP_BATCH_INVARIANT : 0);
    if (status == CUL_OK) c.download();
    return status;
  }

  int64_t columns() const { return case_.epilogue == CUL_EPILOGUE_SILU_MUL ? case_.n / 2 : case_.n; }

  std::vector<double> reference(const DeviceTensor& a) const {
    std::vector<double> out;
    for (int64_t r = 0; r < a.rows(); ++r) {
      const auto sum = [&](int64_t column) {
        double s = case_.bias ? bias_->get(0, column) : 0;
        for (int64_t j = 0; j < case_.k; ++j) s += a.get(r, j) * weights_[static_cast<size_t>(column * case_.k + j)];
        return s;
      };
      for (int64_t column = 0; column < columns(); ++column)
        out.push_back(case_.epilogue == CUL_EPILOGUE_SILU_MUL ? silu(sum(column)) * sum(column + columns())
                      : case_.epilogue == CUL_EPILOGUE_SILU   ? silu(sum(column))
                                                              : sum(column));
    }
    return out;
  }

 private:
  Context& context_;
  Int4Case case_;
  std::mt19937 rng_;
  cul_pack_plan_result plan_{};
  std::vector<double> weights_;
  std::unique_ptr<DeviceTensor> perm_, packed_, scales_, zeros_, bias_;
};

void fill_normal(DeviceTensor& a, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<double> normal;
  a.fill([&](auto, auto) { return normal(rng); });
}

std::string describe(const Int4Case& c, uint32_t seed) {
  return ::testing::PrintToString(c.m) + " x " + ::testing::PrintToString(c.n) + " x " + ::testing::PrintToString(c.k) + ", group " +
         ::testing::PrintToString(c.group) + ", seed " + ::testing::PrintToString(seed);
}

void check_int4(DeviceChoice device, const Int4Case& c, uint32_t seed) {
  SCOPED_TRACE(describe(c, seed));
  Context context(device);
  Int4Problem problem(context, c, seed);
  DeviceTensor a(context, c.type, {c.m, c.k}, c.pad), out(context, c.type, {c.m, problem.columns()}, c.pad),
      again(context, c.type, {c.m, problem.columns()}, c.pad);
  fill_normal(a, seed + 1);
  ASSERT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
  ASSERT_EQ(problem.multiply(a, again), CUL_OK) << cul_last_error();
  EXPECT_LE(rms_ratio(out, problem.reference(a)), bound_of(c.type)) << context.plan;
  EXPECT_TRUE(out.guards_untouched());
  EXPECT_EQ(out.image, again.image) << "two runs differ";
}

TEST_P(GemmKernelTest, int4EveryTile) {
  uint32_t seed = 20260803;
  for (const int64_t m : {1, 8, 11, 27, 50, 130}) check_int4(GetParam(), {.m = m, .n = 72, .k = 160, .group = 32, .bias = true}, seed++);
}

TEST_P(GemmKernelTest, int4EveryGroupWithAndWithoutZeros) {
  uint32_t seed = 20260810;
  for (const int32_t group : {-1, 32, 64, 128})
    for (const bool zeros : {false, true}) {
      check_int4(GetParam(), {.m = 5, .n = 130, .k = 328, .group = group, .zeros = zeros}, seed++);
      check_int4(GetParam(), {.m = 18, .n = 64, .k = 200, .group = group, .type = kBf16, .scale_type = kBf16, .zeros = zeros}, seed++);
    }
}

TEST_P(GemmKernelTest, int4LongKIsSplitBetweenBlocks) {
  for (const int64_t m : {1, 40, 70}) check_int4(GetParam(), {.m = m, .n = 64, .k = 2080, .group = 128, .zeros = true}, 20260820);
  check_int4(GetParam(), {.m = 3, .n = 64, .k = 7000, .group = -1}, 20260821);  // every ring of stages goes round
}

TEST_P(GemmKernelTest, int4ManyColumnTiles) {
  check_int4(GetParam(), {.m = 6, .n = 1000, .k = 192, .group = 64, .zeros = true}, 20260822);
  check_int4(GetParam(), {.m = 140, .n = 330, .k = 128, .group = 128, .type = kBf16, .scale_type = kBf16}, 20260823);
}

TEST_P(GemmKernelTest, int4ActOrder) {
  check_int4(GetParam(), {.m = 3, .n = 72, .k = 256, .group = 64, .zeros = true, .act_order = true}, 20260830);
  check_int4(GetParam(), {.m = 20, .n = 72, .k = 300, .group = 64, .zeros = true, .act_order = true, .uneven = true, .pad = 5}, 20260831);
}

TEST_P(GemmKernelTest, int4PaddedAndUnalignedRows) {
  for (const int64_t pad : {1, 8}) check_int4(GetParam(), {.m = 9, .n = 77, .k = 131, .group = 32, .bias = true, .pad = pad}, 20260840);
  check_int4(GetParam(), {.m = 3, .n = 1, .k = 1, .group = -1, .zeros = true}, 20260841);
  check_int4(GetParam(), {.m = 9, .n = 72, .k = 184, .group = 32}, 20260842);  // aligned rows that end within a slice
}

TEST_P(GemmKernelTest, int4Epilogues) {
  uint32_t seed = 20260850;
  for (const int32_t epilogue : {CUL_EPILOGUE_SILU, CUL_EPILOGUE_SILU_MUL})
    for (const int64_t n : {128, 384, 134})  // halves of one and of three whole blocks of columns, and not of whole ones
      for (const int64_t m : {2, 130})
        check_int4(GetParam(), {.m = m, .n = n, .k = 96, .group = 32, .bias = true, .epilogue = epilogue, .pad = m == 2 ? 3 : 0, .scale = 0.02}, seed++);
}

// Scales of the other half type, beyond its range: 1e-7 vanishes in f16 arithmetic, 3e38 overflows it.
TEST_P(GemmKernelTest, int4ScalesOfTheOtherHalfType) {
  check_int4(GetParam(), {.m = 4, .n = 72, .k = 128, .group = 64, .type = kBf16, .scale_type = kF16, .scale = 1e-6}, 20260860);
  check_int4(GetParam(), {.m = 4, .n = 72, .k = 128, .group = 64, .type = kF16, .scale_type = kBf16, .scale = 1.0 / 512}, 20260861);
  check_int4(GetParam(), {.m = 4, .n = 72, .k = 128, .group = 64, .type = kBf16, .scale_type = kBf16, .scale = 1e30}, 20260862);
}

// One column is not a number, the others are what they were.
TEST_P(GemmKernelTest, int4ScalesThatAreNotNumbers) {
  for (const int64_t m : {2, 20, 100}) {
    check_int4(GetParam(), {.m = m, .n = 72, .k = 192, .group = 64, .nan_scale = true}, 20260865);
    check_int4(GetParam(), {.m = m, .n = 72, .k = 96, .group = 32, .type = kBf16, .scale_type = kBf16, .zeros = true, .nan_scale = true}, 20260866);
  }
}

TEST_P(GemmKernelTest, int4BatchInvariantRowsHaveTheirOwnBits) {
  for (const int64_t k : {320, 2048}) {  // the long one in several pieces where a design splits k
    Context context(GetParam());
    const Int4Case c{.m = 40, .n = 72, .k = k, .group = 64, .zeros = true, .batch_invariant = true};
    Int4Problem problem(context, c, 20260870);
    DeviceTensor a(context, c.type, {c.m, c.k}), all(context, c.type, {c.m, c.n});
    fill_normal(a, 20260871);
    ASSERT_EQ(problem.multiply(a, all), CUL_OK) << cul_last_error();
    for (const int64_t row : {0, 17, 39}) {
      DeviceTensor one(context, c.type, {1, c.k}), out(context, c.type, {1, c.n});
      one.fill([&](auto, int64_t j) { return a.get(row, j); });
      ASSERT_EQ(problem.multiply(one, out), CUL_OK) << cul_last_error();
      for (int64_t j = 0; j < c.n; ++j) ASSERT_EQ(out.get(0, j), all.get(row, j)) << k << ": " << row << ", " << j;
    }
  }
}

TEST_P(GemmKernelTest, int4NotANumberStaysInItsRow) {
  Context context(GetParam());
  const Int4Case c{.m = 10, .n = 72, .k = 131, .group = 32};
  Int4Problem problem(context, c, 20260880);
  DeviceTensor a(context, c.type, {c.m, c.k}), out(context, c.type, {c.m, c.n});
  fill_normal(a, 20260881);
  a.set(3, 130, NAN);
  a.set(5, 0, std::numeric_limits<double>::infinity());
  a.upload();
  ASSERT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
  for (int64_t r = 0; r < c.m; ++r)
    for (int64_t j = 0; j < c.n; ++j)
      ASSERT_TRUE(r == 3 ? std::isnan(out.get(r, j)) : r == 5 || std::isfinite(out.get(r, j))) << r << ", " << j;
}

TEST_P(GemmKernelTest, int4NoTokens) {
  Context context(GetParam());
  Int4Problem problem(context, {.m = 0, .n = 72, .k = 64, .group = 32, .act_order = true}, 20260890);
  DeviceTensor a(context, kF16, {0, 64}), out(context, kF16, {0, 72});
  EXPECT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
}

// ---------------------------------------------------------------------------------------------------------- dense

struct DenseCase {
  int64_t m, n, k;
  cul_dtype type, out;
  int32_t act = CUL_ACT_NONE;
  bool bias = false;
  int64_t pad = 0;
};

void check_dense(DeviceChoice device, const DenseCase& c, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << c.m << " x " << c.n << " x " << c.k << ", " << name_of(dtype_of(c.type)) << ", act " << c.act << ", pad "
                                    << c.pad << ", seed " << seed);
  Context context(device);
  DeviceTensor a(context, c.type, {c.m, c.k}, c.pad), b(context, c.type, {c.n, c.k}, c.pad), bias(context, c.type, {c.n}),
      out(context, c.out, {c.m, c.n}, c.pad), again(context, c.out, {c.m, c.n}, c.pad);
  fill_normal(a, seed);
  fill_normal(b, seed + 1);
  fill_normal(bias, seed + 2);
  std::vector<double> ref;
  for (int64_t r = 0; r < c.m; ++r)
    for (int64_t j = 0; j < c.n; ++j) {
      double s = c.bias ? bias.get(0, j) : 0;
      for (int64_t i = 0; i < c.k; ++i) s += a.get(r, i) * b.get(j, i);
      ref.push_back(c.act == CUL_ACT_SILU ? silu(s) : c.act == CUL_ACT_GELU ? 0.5 * s * (1 + std::erf(s / std::sqrt(2.0))) : s);
    }
  cul_gemm_args args{};
  args.a = &a.tensor, args.b = &b.tensor, args.bias = c.bias ? &bias.tensor : nullptr, args.act = c.act;
  args.c = &out.tensor;
  ASSERT_EQ(context.run(cul_gemm, args), CUL_OK) << cul_last_error();
  args.c = &again.tensor;
  ASSERT_EQ(context.run(cul_gemm, args), CUL_OK) << cul_last_error();
  out.download();
  again.download();
  EXPECT_LE(rms_ratio(out, ref), bound_of(c.out)) << context.plan;
  EXPECT_TRUE(out.guards_untouched());
  EXPECT_EQ(out.image, again.image) << "two runs differ";
}

TEST_P(GemmKernelTest, denseHalf) {
  uint32_t seed = 20260900;
  for (const cul_dtype type : {kF16, kBf16}) {
    check_dense(GetParam(), {1, 70, 200, type, type, CUL_ACT_NONE, true}, seed++);
    check_dense(GetParam(), {17, 136, 72, type, kF32, CUL_ACT_SILU, false, 8}, seed++);
    check_dense(GetParam(), {130, 65, 129, type, type, CUL_ACT_GELU, true, 3}, seed++);
  }
  check_dense(GetParam(), {9, 64, 1100, kF16, kBf16, CUL_ACT_NONE, true}, seed++);
  check_dense(GetParam(), {9, 64, 184, kF16, kF16}, seed++);
}

// With either design: the copy engine takes strides of 1104, not of 1100.
TEST_P(GemmKernelTest, denseBatchInvariantRowsHaveTheirOwnBits) {
  constexpr int64_t k = 1096;
  for (const int64_t pad : {4, 8}) {
    Context context(GetParam());
    constexpr int64_t m = 150, n = 72;
    DeviceTensor a(context, kBf16, {m, k}, pad), b(context, kBf16, {n, k}, 8), all(context, kF32, {m, n});
    fill_normal(a, 20260915);
    fill_normal(b, 20260916);
    const auto multiply = [&](DeviceTensor& rows, DeviceTensor& out) {
      cul_gemm_args args{};
      args.a = &rows.tensor, args.b = &b.tensor, args.c = &out.tensor;
      ASSERT_EQ(context.run(cul_gemm, args, CUL_OP_BATCH_INVARIANT), CUL_OK) << cul_last_error();
      out.download();
    };
    multiply(a, all);
    for (const int64_t row : {0, 70, 149}) {
      DeviceTensor one(context, kBf16, {1, k}, pad), out(context, kF32, {1, n});
      one.fill([&](auto, int64_t j) { return a.get(row, j); });
      multiply(one, out);
      for (int64_t j = 0; j < n; ++j) ASSERT_EQ(out.get(0, j), all.get(row, j)) << pad << ", " << row << ", " << j;
    }
  }
}

TEST_P(GemmKernelTest, rowsThatRepeatOrDescend) {
  Context context(GetParam());
  const auto same = [](const std::vector<double>& want, const DeviceTensor& got) {
    size_t i = 0;
    for (int64_t r = 0; r < got.rows(); ++r)
      for (int64_t c = 0; c < got.columns(); ++c, ++i) EXPECT_NEAR(got.get(r, c), want[i], 0.02 * std::abs(want[i]) + 0.05) << r << ", " << c;
  };
  const Int4Case int4{.m = 20, .n = 72, .k = 64, .group = 32};
  Int4Problem packed(context, int4, 20260917);
  DeviceTensor a(context, kF16, {20, 64}), b(context, kF16, {72, 64}), c(context, kF16, {20, 72});
  fill_normal(a, 20260918);
  fill_normal(b, 20260919);
  with_unusual_rows(a, [&] {
    ASSERT_EQ(packed.multiply(a, c), CUL_OK) << cul_last_error();
    same(packed.reference(a), c);
  });
  cul_gemm_args args{};
  args.a = &a.tensor, args.b = &b.tensor, args.c = &c.tensor;
  const auto multiply = [&] {
    ASSERT_EQ(context.run(cul_gemm, args), CUL_OK) << cul_last_error();
    c.download();
    std::vector<double> want;
    for (int64_t r = 0; r < 20; ++r)
      for (int64_t n = 0; n < 72; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < 64; ++k) sum += a.get(r, k) * b.get(n, k);
        want.push_back(sum);
      }
    same(want, c);
  };
  with_unusual_rows(a, multiply);
  fill_normal(a, 20260920);
  with_unusual_rows(b, multiply);
}

TEST_P(GemmKernelTest, denseF32) {
  check_dense(GetParam(), {3, 70, 129, kF32, kF32, CUL_ACT_NONE, true, 1}, 20260910);
  check_dense(GetParam(), {66, 130, 40, kF32, kF32, CUL_ACT_GELU, false}, 20260911);
  check_dense(GetParam(), {5, 7, 33, kF32, kF16, CUL_ACT_SILU, true}, 20260912);
}

TEST_P(GemmKernelTest, denseWithoutKIsTheBias) {
  for (const cul_dtype type : {kF16, kF32}) check_dense(GetParam(), {5, 70, 0, type, kF32, CUL_ACT_SILU, true}, 20260920);
}

INSTANTIATE_TEST_SUITE_P(, GemmKernelTest, ::testing::ValuesIn(devices_here()), device_test_name);

}  // namespace
}  // namespace culebra

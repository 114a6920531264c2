// w4a16_sparse24_gemm through the C ABI on every backend that runs here, against sums in double over the exact operands; 2:4 packing and
// its inverse, and the instruction's layout against the packed one.
#include <algorithm>

#include "gemm_harness.h"
#include "ops/gemm/quantized_gemm.h"
#include "ops/gemm/packing/sparse24_layout.h"

namespace culebra {
namespace {

using namespace culebra::testing;

struct Case {
  int64_t m, n, k;
  int32_t group = 128;
  cul_dtype type = kF16, scale_type = kF16, weights = kU8;
  bool bias = false;
  int32_t epilogue = CUL_EPILOGUE_NONE;
  int64_t pad = 0;
  bool batch_invariant = false;
};

double silu(double x) { return x / (1 + std::exp(-x)); }

class Problem {
 public:
  Problem(Context& context, const Case& c, uint32_t seed)
      : context_(context), case_(c), groups_(c.group == -1 ? 1 : (c.k + c.group - 1) / c.group), q(context, c.weights, {c.n, c.k}, 3),
        scales(context, c.scale_type, {c.n, groups_}), bias(context, c.type, {c.n}) {
    std::mt19937 rng(seed);
    const double zero = dtype_of(c.weights) == DType::u8 ? 8 : 0;
    for (int64_t i = 0; i < c.n; ++i)
      for (int64_t j = 0; j < c.k; j += 4) {
        // Any two places; 0 among the values leaves fours with one weight or none.
        int64_t place[4] = {0, 1, 2, 3};
        std::shuffle(place, place + 4, rng);
        for (int64_t p = 0; p < 4; ++p)
          if (j + place[p] < c.k) q.set(i, j + place[p], p < 2 ? zero + static_cast<double>(rng() % 16) - 8 : zero);
      }
    q.upload();
    scales.fill([&](auto, auto) { return 0.01 * (1 + static_cast<double>(rng() % 1000) / 500); });
    bias.fill([&](auto, auto) { return static_cast<double>(rng() % 200) / 100 - 1; });
  }

  cul_checkpoint checkpoint(const cul_tensor* weights, const cul_tensor* s) const {
    cul_checkpoint c{};
    c.struct_size = sizeof c;
    c.format = CUL_FORMAT_PLAIN, c.bits = 4, c.group = case_.group, c.sparsity = CUL_SPARSITY_2_4;
    c.n = case_.n, c.k = case_.k, c.qweight = weights, c.scales = s;
    return c;
  }
  cul_status plan() {
    cul_tensor host_q = q.host(), host_scales = scales.host();
    const cul_checkpoint host = checkpoint(&host_q, &host_scales);
    layout.struct_size = sizeof layout;
    return cul_pack_plan(context_.device, &host, &layout, nullptr, nullptr);
  }
  cul_status pack() {
    if (const cul_status status = plan()) return status;
    packed = std::make_unique<DeviceTensor>(context_, kU8, std::vector<int64_t>{layout.packed_bytes});
    packed_scales = std::make_unique<DeviceTensor>(context_, case_.scale_type, std::vector<int64_t>{layout.groups, layout.n_padded});
    const cul_checkpoint device = checkpoint(&q.tensor, &scales.tensor);
    cul_pack_weights_args args{};
    args.checkpoint = &device, args.packed = &packed->tensor, args.packed_scales = &packed_scales->tensor, args.packed_group = layout.group;
    return context_.run(cul_pack_weights, args);
  }
  cul_status unpack(DeviceTensor& to, DeviceTensor& to_scales) {
    const cul_checkpoint device = checkpoint(&to.tensor, &to_scales.tensor);
    cul_unpack_weights_args args{};
    args.checkpoint = &device, args.packed = &packed->tensor, args.packed_scales = &packed_scales->tensor, args.packed_group = layout.group;
    const cul_status status = context_.run(cul_unpack_weights, args);
    if (status == CUL_OK) to.download(), to_scales.download();
    return status;
  }

  cul_w4a16_sparse24_gemm_args args(DeviceTensor& a, DeviceTensor& c) {
    cul_w4a16_sparse24_gemm_args x{};
    x.a = &a.tensor, x.packed = &packed->tensor, x.packed_scales = &packed_scales->tensor, x.bias = case_.bias ? &bias.tensor : nullptr;
    x.c = &c.tensor, x.n = case_.n, x.k = case_.k, x.packed_group = layout.group, x.epilogue = case_.epilogue;
    return x;
  }
  cul_status multiply(DeviceTensor& a, DeviceTensor& c) {
    auto x = args(a, c);
    const cul_status status = context_.run(cul_w4a16_sparse24_gemm, x, case_.batch_invariant ? CUL_OP_BATCH_INVARIANT : 0);
    if (status == CUL_OK) c.download();
    return status;
  }

  int64_t columns() const { return case_.epilogue == CUL_EPILOGUE_SILU_MUL ? case_.n / 2 : case_.n; }
  double reference(const DeviceTensor& a, int64_t row, int64_t column) const {
    const double zero = dtype_of(case_.weights) == DType::u8 ? 8 : 0;
    const auto sum = [&](int64_t n) {
      double s = case_.bias ? bias.get(0, n) : 0;
      for (int64_t j = 0; j < case_.k; ++j) s += a.get(row, j) * (q.get(n, j) - zero) * scales.get(n, case_.group == -1 ? 0 : j / case_.group);
      return s;
    };
    if (case_.epilogue == CUL_EPILOGUE_SILU_MUL) return silu(sum(column)) * sum(column + columns());
    return case_.epilogue == CUL_EPILOGUE_SILU ? silu(sum(column)) : sum(column);
  }

 private:
  Context& context_;
  Case case_;
  int64_t groups_;

 public:
  DeviceTensor q, scales, bias;
  cul_pack_plan_result layout{};
  std::unique_ptr<DeviceTensor> packed, packed_scales;
};

void fill_normal(DeviceTensor& a, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<double> normal;
  a.fill([&](auto, auto) { return normal(rng); });
}

void check(int32_t backend, const Case& c, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << c.m << " x " << c.n << " x " << c.k << ", group " << c.group << ", seed " << seed);
  Context context(backend);
  Problem problem(context, c, seed);
  ASSERT_EQ(problem.pack(), CUL_OK) << cul_last_error();
  DeviceTensor a(context, c.type, {c.m, c.k}, c.pad), out(context, c.type, {c.m, problem.columns()}, c.pad), again(context, c.type, {c.m, problem.columns()}, c.pad);
  fill_normal(a, seed + 1);
  ASSERT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
  ASSERT_EQ(problem.multiply(a, again), CUL_OK) << cul_last_error();
  double error = 0, scale = 0;
  for (int64_t r = 0; r < c.m; ++r)
    for (int64_t j = 0; j < problem.columns(); ++j) {
      const double want = problem.reference(a, r, j), got = out.get(r, j);
      error += (got - want) * (got - want), scale += want * want;
    }
  EXPECT_LE(std::sqrt(error), (c.type.code == CUL_BFLOAT ? 5e-3 : 2e-3) * std::sqrt(scale)) << context.plan;
  EXPECT_TRUE(out.guards_untouched());
  EXPECT_EQ(out.image, again.image) << "two runs differ";
}

class Sparse24Test : public ::testing::TestWithParam<int32_t> {};

TEST_P(Sparse24Test, everyTileGroupAndType) {
  uint32_t seed = 20261300;
  for (const int64_t m : {1, 20, 130}) check(GetParam(), {.m = m, .n = 72, .k = 256, .bias = true}, seed++);
  for (const int32_t group : {-1, 128})
    for (const cul_dtype type : {kF16, kBf16}) check(GetParam(), {.m = 9, .n = 130, .k = 328, .group = group, .type = type, .scale_type = kBf16}, seed++);
}

TEST_P(Sparse24Test, raggedUnalignedAndSigned) {
  check(GetParam(), {.m = 3, .n = 1, .k = 1, .group = -1}, 20261310);
  check(GetParam(), {.m = 5, .n = 65, .k = 131, .group = -1, .weights = kI8, .pad = 1}, 20261311);
  check(GetParam(), {.m = 17, .n = 40, .k = 130, .pad = 8}, 20261312);
}

TEST_P(Sparse24Test, longKIsSplitBetweenBlocks) {
  check(GetParam(), {.m = 2, .n = 64, .k = 2080, .bias = true}, 20261320);
  check(GetParam(), {.m = 40, .n = 64, .k = 1536, .group = -1}, 20261321);
}

TEST_P(Sparse24Test, epilogues) {
  for (const int64_t n : {128, 134}) {
    check(GetParam(), {.m = 2, .n = n, .k = 128, .bias = true, .epilogue = CUL_EPILOGUE_SILU_MUL, .pad = 3}, 20261330);
    check(GetParam(), {.m = 9, .n = n, .k = 128, .epilogue = CUL_EPILOGUE_SILU}, 20261331);
  }
}

TEST_P(Sparse24Test, batchInvariantRowsHaveTheirOwnBits) {
  Context context(GetParam());
  const Case c{.m = 40, .n = 72, .k = 320, .batch_invariant = true};
  Problem problem(context, c, 20261340);
  ASSERT_EQ(problem.pack(), CUL_OK) << cul_last_error();
  DeviceTensor a(context, c.type, {c.m, c.k}), all(context, c.type, {c.m, c.n});
  fill_normal(a, 20261341);
  ASSERT_EQ(problem.multiply(a, all), CUL_OK) << cul_last_error();
  for (const int64_t row : {0, 17, 39}) {
    DeviceTensor one(context, c.type, {1, c.k}), out(context, c.type, {1, c.n});
    one.fill([&](auto, int64_t j) { return a.get(row, j); });
    ASSERT_EQ(problem.multiply(one, out), CUL_OK) << cul_last_error();
    for (int64_t j = 0; j < c.n; ++j) ASSERT_EQ(out.get(0, j), all.get(row, j)) << row << ", " << j;
  }
}

TEST_P(Sparse24Test, notANumberStaysInItsRowAndNoRowsAreFine) {
  Context context(GetParam());
  const Case c{.m = 10, .n = 72, .k = 131};
  Problem problem(context, c, 20261350);
  ASSERT_EQ(problem.pack(), CUL_OK) << cul_last_error();
  DeviceTensor a(context, c.type, {c.m, c.k}), out(context, c.type, {c.m, c.n}), none(context, c.type, {0, c.k}), empty(context, c.type, {0, c.n});
  fill_normal(a, 20261351);
  a.set(3, 130, NAN);
  a.upload();
  ASSERT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
  for (int64_t r = 0; r < c.m; ++r)
    for (int64_t j = 0; j < c.n; ++j) ASSERT_TRUE(r == 3 || std::isfinite(out.get(r, j))) << r << ", " << j;
  EXPECT_EQ(problem.multiply(none, empty), CUL_OK) << cul_last_error();
}

TEST_P(Sparse24Test, unpackingIsTheInverseAndThreeBitsAreRead) {
  for (const cul_dtype weights : {kU8, kI8}) {
    Context context(GetParam());
    const Case c{.m = 1, .n = 77, .k = 203, .weights = weights};
    Problem problem(context, c, 20261360);
    ASSERT_EQ(problem.pack(), CUL_OK) << cul_last_error();
    EXPECT_EQ(problem.layout.packed_bytes, problem.layout.n_padded * problem.layout.k_padded * 3 / 8);
    DeviceTensor q(context, weights, {c.n, c.k}, 3), scales(context, c.scale_type, {c.n, 2});
    ASSERT_EQ(problem.unpack(q, scales), CUL_OK) << cul_last_error();
    EXPECT_EQ(q.image, problem.q.image);
    EXPECT_EQ(scales.image, problem.scales.image);
  }
}

TEST_P(Sparse24Test, refusals) {
  Context context(GetParam());
  const Case c{.m = 2, .n = 64, .k = 128};
  Problem problem(context, c, 20261370);
  ASSERT_EQ(problem.pack(), CUL_OK) << cul_last_error();
  DeviceTensor a(context, kF16, {2, 128}), narrow(context, kF16, {2, 64}), out(context, kF16, {2, 64}), other(context, kBf16, {2, 64});
  const auto call = [&](auto change) {
    auto args = problem.args(a, out);
    change(args);
    return context.run(cul_w4a16_sparse24_gemm, args);
  };
  using Args = cul_w4a16_sparse24_gemm_args;
  EXPECT_EQ(call([](Args&) {}), CUL_OK) << cul_last_error();
  EXPECT_EQ(call([&](Args& x) { x.a = &narrow.tensor; }), CUL_SHAPE);
  EXPECT_EQ(call([&](Args& x) { x.a = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(call([&](Args& x) { x.c = &other.tensor; }), CUL_DTYPE);
  EXPECT_EQ(call([&](Args& x) { x.packed_group = 64; }), CUL_RANGE);
  EXPECT_EQ(call([&](Args& x) { x.epilogue = 7; }), CUL_RANGE);
  EXPECT_EQ(call([&](Args& x) { x.n = 65; }), CUL_SHAPE);

  for (int64_t k = 40; k < 43; ++k) problem.q.set(5, k, 3);
  EXPECT_EQ(problem.plan(), CUL_RANGE);
  EXPECT_NE(std::string(cul_last_error()).find("row 5 has 3 weights that are not zero among k = 40 .. 43"), std::string::npos) << cul_last_error();
}

INSTANTIATE_TEST_SUITE_P(, Sparse24Test, ::testing::ValuesIn(backends_here()), backend_test_name);

// The positions of a tile in the packed words are those that the instruction reads from its lanes.
TEST(Sparse24LayoutTest, positionsLieWhereTheInstructionWantsThem) {
  const auto get = [](int64_t n, int64_t k) { return k % 4 == (n + k / 4) % 3 || k % 4 == 3 ? 1 + static_cast<int>((n * 7 + k) % 7) : 8; };
  const PackedSize size{64, 64};
  for (int64_t n = 0; n < 64; ++n)
    for (int64_t k = 0; k < 64; k += 4) {
      const int64_t g = n / 8, tile = n % 8 / 2, row = n % 2;  // column 8g + 2w + r is row g + 8r of tile w
      const int64_t lane = 4 * g + 2 * (tile % 2) + k % 32 / 16, word = 256 + lane * 4 + k / 32 * 2 + tile / 2;
      const uint32_t bits = Sparse24Fragments::pack(word, size, get) >> (16 * row + k % 16);
      ASSERT_EQ(bits & 3, static_cast<uint32_t>((n + k / 4) % 3)) << n << ", " << k;
      ASSERT_EQ(bits >> 2 & 3, 3u) << n << ", " << k;
    }
}

}  // namespace
}  // namespace culebra

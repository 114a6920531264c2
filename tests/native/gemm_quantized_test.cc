// w8a16_gemm, w6a16_gemm and w6a8_gemm through the C ABI on every backend that runs here, against sums in double over the exact operands.
#include <algorithm>
#include <limits>
#include <memory>

#include "backends/backend.h"
#include "gemm_harness.h"
#include "ops/gemm/quantized_gemm.h"

namespace culebra {
namespace {

using namespace culebra::testing;

struct Case {
  int64_t m, n, k;
  int32_t bits = 8, group = 128;
  cul_dtype weights = kI8, type = kF16, scale_type = kF16;
  bool byte_operand = false, block128 = false, zeros = false, bias = false, act_order = false;
  int32_t epilogue = CUL_EPILOGUE_NONE;
  int64_t pad = 0;
  bool batch_invariant = false;
  double scale = 0.01;  // magnitude of the scales
};

double silu(double x) { return x / (1 + std::exp(-x)); }

// A packed matrix, its exact values, and calls on it. `type` is that of c, and of a unless its operand is bytes.
class Problem {
 public:
  Problem(Context& context, const Case& c, uint32_t seed) : context_(context), case_(c), rng_(seed) {
    const int64_t n = c.n, k = c.k, group = c.block128 ? 128 : c.group == -1 ? k : c.group, groups = (k + group - 1) / group;
    const int64_t scale_rows = c.block128 ? (n + 127) / 128 : n;
    const auto draw = [&](int64_t below) { return std::uniform_int_distribution<int64_t>(0, below - 1)(rng_); };
    DeviceTensor q(context, c.weights, {n, k}, 1), scales(context, c.scale_type, {scale_rows, groups}), zeros(context, c.weights, {n, groups}),
        g_idx(context, kI32, {k});
    const int64_t span = int64_t{1} << c.bits;
    const int64_t low = dtype_of(c.weights) == DType::i8 ? -span / 2 : 0;
    q.fill([&](auto, auto) {
      if (dtype_of(c.weights) != DType::f8e4m3) return static_cast<double>(draw(span) + low);
      const auto code = static_cast<uint8_t>(draw(256));
      return static_cast<double>(to_float(float8_e4m3_t{code % 128 == 127 ? uint8_t{1} : code}));
    });
    scales.fill([&](auto, auto) { return c.scale * (1 + static_cast<double>(draw(1000)) / 500); });
    zeros.fill([&](auto, auto) { return static_cast<double>(draw(span) + low); });
    std::vector<int32_t> order(static_cast<size_t>(k));
    for (int64_t j = 0; j < k; ++j) order[static_cast<size_t>(j)] = static_cast<int32_t>(j / group);
    if (c.act_order) std::shuffle(order.begin(), order.end(), rng_);
    g_idx.fill([&](auto, auto j) { return order[static_cast<size_t>(j)]; });
    const double middle = dtype_of(c.weights) == DType::u8 ? static_cast<double>(span / 2) : 0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < k; ++j) {
        const int64_t g = order[static_cast<size_t>(j)];
        weights_.push_back((q.get(i, j) - (c.zeros ? zeros.get(i, g) : middle)) * scales.get(c.block128 ? i / 128 : i, g));
      }
    cul_tensor host_q = q.host(), host_scales = scales.host(), host_zeros = zeros.host(), host_index = g_idx.host();
    cul_checkpoint checkpoint{sizeof checkpoint, CUL_FORMAT_PLAIN, c.bits, c.block128 ? -1 : c.group, c.block128 ? CUL_SCALING_BLOCK128 : CUL_SCALING_GROUP,
                              CUL_SPARSITY_NONE, c.byte_operand ? CUL_OPERAND_BYTE : CUL_OPERAND_HALF, 0, n, k, &host_q, &host_scales,
                              c.zeros ? &host_zeros : nullptr, c.act_order ? &host_index : nullptr};
    plan_.struct_size = sizeof plan_;
    EXPECT_EQ(cul_pack_plan(context.device, &checkpoint, &plan_, nullptr, nullptr), CUL_OK) << cul_last_error();
    std::vector<int32_t> perm(static_cast<size_t>(plan_.k_padded)), source(static_cast<size_t>(plan_.groups));
    EXPECT_EQ(cul_pack_plan(context.device, &checkpoint, &plan_, perm.data(), source.data()), CUL_OK);
    const auto make = [&](cul_dtype type, std::vector<int64_t> shape) { return std::make_unique<DeviceTensor>(context, type, std::move(shape)); };
    perm_ = make(kI32, {plan_.k_padded});
    perm_->fill([&](auto, auto j) { return perm[static_cast<size_t>(j)]; });
    DeviceTensor device_source(context, kI32, {plan_.groups});
    device_source.fill([&](auto, auto j) { return source[static_cast<size_t>(j)]; });
    packed_ = make(dtype_of(c.weights) == DType::f8e4m3 ? kF8 : kU8, {plan_.packed_bytes});
    scales_ = make(c.scale_type, {plan_.groups, plan_.scale_columns});
    zeros_ = make(kU8, {plan_.groups, plan_.n_padded});
    bias_ = make(c.type, {n});
    bias_->fill([&](auto, auto) { return c.scale * 30 * static_cast<double>(draw(200) - 100); });
    a_scale_ = make(kF32, {c.m});
    a_scale_->fill([&](auto, auto) { return 0.01 * static_cast<double>(1 + draw(100)); });
    checkpoint.qweight = &q.tensor, checkpoint.scales = &scales.tensor, checkpoint.zeros = c.zeros ? &zeros.tensor : nullptr;
    checkpoint.g_idx = c.act_order ? &g_idx.tensor : nullptr;
    cul_pack_weights_args pack{};
    pack.checkpoint = &checkpoint;
    if (plan_.permuted) pack.perm = &perm_->tensor, pack.group_source = &device_source.tensor;
    pack.packed = &packed_->tensor, pack.packed_scales = &scales_->tensor, pack.packed_zeros = c.zeros ? &zeros_->tensor : nullptr;
    pack.packed_group = plan_.group;
    EXPECT_EQ(context.run(cul_pack_weights, pack), CUL_OK) << cul_last_error();
  }

  cul_dtype operand() const { return case_.byte_operand ? kI8 : case_.type; }
  int64_t columns() const { return case_.epilogue == CUL_EPILOGUE_SILU_MUL ? case_.n / 2 : case_.n; }
  void fill_operand(DeviceTensor& a, uint32_t seed) const {
    std::mt19937 rng(seed);
    std::normal_distribution<double> normal;
    if (case_.byte_operand) a.fill([&](auto, auto) { return static_cast<double>(rng() % 256) - 128; });
    else a.fill([&](auto, auto) { return normal(rng); });
  }

  // change: what a test spoils in the arguments.
  template <class Change>
  cul_status multiply(DeviceTensor& a, DeviceTensor& c, Change change) {
    const uint32_t flags = case_.batch_invariant ? CUL_OP_BATCH_INVARIANT : 0;
    const auto with = [&](auto args, auto op) {
      args.a = &a.tensor, args.packed = &packed_->tensor, args.packed_scales = &scales_->tensor;
      args.bias = case_.bias ? &bias_->tensor : nullptr, args.c = &c.tensor, args.n = case_.n, args.k = case_.k;
      args.epilogue = case_.epilogue;
      if constexpr (requires { args.a_scale; }) args.a_scale = &a_scale_->tensor;
      if constexpr (requires { args.packed_group; }) args.packed_group = plan_.group;
      if constexpr (requires { args.packed_zeros; }) args.packed_zeros = case_.zeros ? &zeros_->tensor : nullptr;
      if constexpr (requires { args.perm; }) args.perm = plan_.permuted ? &perm_->tensor : nullptr;
      change(args);
      const cul_status status = context_.run(op, args, flags);
      if (status == CUL_OK) c.download();
      return status;
    };
    if (case_.byte_operand) return with(cul_w6a8_gemm_args{}, cul_w6a8_gemm);
    if (case_.bits == 6) return with(cul_w6a16_gemm_args{}, cul_w6a16_gemm);
    return with(cul_w8a16_gemm_args{}, cul_w8a16_gemm);
  }
  cul_status multiply(DeviceTensor& a, DeviceTensor& c) {
    return multiply(a, c, [](auto&) {});
  }

  std::vector<double> reference(const DeviceTensor& a) const {
    std::vector<double> out;
    for (int64_t r = 0; r < a.rows(); ++r) {
      const auto sum = [&](int64_t column) {
        double s = 0;
        for (int64_t j = 0; j < case_.k; ++j) s += a.get(r, j) * weights_[static_cast<size_t>(column * case_.k + j)];
        return s * (case_.byte_operand ? a_scale_->get(0, r) : 1) + (case_.bias ? bias_->get(0, column) : 0);
      };
      for (int64_t column = 0; column < columns(); ++column)
        out.push_back(case_.epilogue == CUL_EPILOGUE_SILU_MUL ? silu(sum(column)) * sum(column + columns())
                      : case_.epilogue == CUL_EPILOGUE_SILU   ? silu(sum(column))
                                                              : sum(column));
    }
    return out;
  }

  cul_pack_plan_result plan_{};
  std::unique_ptr<DeviceTensor> perm_, packed_, scales_, zeros_, bias_, a_scale_;

 private:
  Context& context_;
  Case case_;
  std::mt19937 rng_;
  std::vector<double> weights_;
};

double error_of(const DeviceTensor& out, const std::vector<double>& ref) {
  double error = 0, scale = 0;
  for (int64_t r = 0; r < out.rows(); ++r)
    for (int64_t c = 0; c < out.columns(); ++c) {
      const double want = ref[static_cast<size_t>(r * out.columns() + c)], got = out.get(r, c);
      error += (got - want) * (got - want);
      scale += want * want;
    }
  return std::sqrt(error / scale);
}

class QuantizedGemmTest : public ::testing::TestWithParam<int32_t> {
 protected:
  void check(const Case& c) {
    SCOPED_TRACE(::testing::Message() << c.m << " x " << c.n << " x " << c.k << ", " << c.bits << " bits " << name_of(dtype_of(c.weights)) << ", "
                                      << name_of(dtype_of(c.type)) << ", group " << c.group << ", seed " << seed_);
    Context context(GetParam());
    Problem problem(context, c, seed_);
    DeviceTensor a(context, problem.operand(), {c.m, c.k}, c.pad), out(context, c.type, {c.m, problem.columns()}, c.pad),
        again(context, c.type, {c.m, problem.columns()}, c.pad);
    problem.fill_operand(a, seed_ + 1000);
    ++seed_;
    ASSERT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
    ASSERT_EQ(problem.multiply(a, again), CUL_OK) << cul_last_error();
    EXPECT_LE(error_of(out, problem.reference(a)), c.type.code == CUL_BFLOAT ? 5e-3 : 2e-3) << context.plan;
    EXPECT_TRUE(out.guards_untouched());
    EXPECT_EQ(out.image, again.image) << "two runs differ";
  }
  // Both half types, and for the 8-bit formats their kinds of weights.
  template <class Change>
  void check_all(Case c, Change change) {
    for (const cul_dtype type : {kF16, kBf16}) {
      c.type = type;
      Case int8 = c, u8 = c, f8 = c, int6 = c, bytes = c;
      u8.weights = kU8, u8.zeros = true;
      f8.weights = kF8, f8.scale_type = kBf16;
      int6.bits = 6;
      bytes.bits = 6, bytes.byte_operand = true;
      for (Case* kind : {&int8, &u8, &f8, &int6, &bytes}) {
        change(*kind);
        check(*kind);
      }
    }
  }
  uint32_t seed_ = 20261000;
};

TEST_P(QuantizedGemmTest, everyTile) {
  for (const int64_t m : {1, 8, 27, 130}) check_all({.m = m, .n = 72, .k = 192, .bias = true}, [](Case&) {});
}

TEST_P(QuantizedGemmTest, everyGroupOfEightBits) {
  for (const int32_t group : {-1, 32, 64, 128})
    for (const bool zeros : {false, true}) {
      check({.m = 5, .n = 130, .k = 328, .group = group, .zeros = zeros});
      check({.m = 18, .n = 64, .k = 200, .group = group, .weights = kU8, .type = kBf16, .scale_type = kBf16, .zeros = zeros});
      check({.m = 5, .n = 70, .k = 200, .group = group, .weights = kF8});
    }
}

TEST_P(QuantizedGemmTest, scalesOfBlocks) {
  check({.m = 3, .n = 200, .k = 320, .weights = kF8, .type = kBf16, .scale_type = kF32, .block128 = true});
  check({.m = 35, .n = 300, .k = 129, .weights = kF8, .scale_type = kF32, .block128 = true, .bias = true});
  check({.m = 3, .n = 130, .k = 260, .weights = kI8, .scale_type = kF32, .block128 = true});
}

TEST_P(QuantizedGemmTest, longKIsSplitBetweenBlocks) {
  for (const int64_t m : {1, 40}) check_all({.m = m, .n = 64, .k = 2080}, [](Case&) {});
}

TEST_P(QuantizedGemmTest, actOrder) {
  check({.m = 3, .n = 72, .k = 256, .group = 64, .weights = kU8, .zeros = true, .act_order = true});
  check({.m = 65, .n = 72, .k = 300, .group = 64, .weights = kF8, .act_order = true, .pad = 5});
}

TEST_P(QuantizedGemmTest, paddedAndUnalignedRows) {
  for (const int64_t pad : {1, 16}) check_all({.m = 9, .n = 77, .k = 131, .bias = true, .pad = pad}, [](Case&) {});
  check_all({.m = 3, .n = 1, .k = 1}, [](Case&) {});
  check_all({.m = 9, .n = 72, .k = 176}, [](Case&) {});  // aligned rows that end within a slice
}

TEST_P(QuantizedGemmTest, epilogues) {
  for (const int32_t epilogue : {CUL_EPILOGUE_SILU, CUL_EPILOGUE_SILU_MUL})
    for (const int64_t n : {128, 134})  // halves of whole blocks, and not
      check_all({.m = 11, .n = n, .k = 128, .bias = true, .epilogue = epilogue, .pad = 3, .scale = 1e-3}, [](Case& c) {
        if (c.byte_operand) c.scale = 1e-4;
        if (c.weights.code == kF8.code) c.scale = 3e-4;
      });
}

// Scales of the other half type, beyond its range; a bf16 product of small operands keeps f32's precision.
TEST_P(QuantizedGemmTest, scalesFarFromOne) {
  check({.m = 4, .n = 72, .k = 128, .type = kBf16, .scale_type = kBf16, .scale = 1e30});
  check({.m = 4, .n = 72, .k = 128, .weights = kF8, .type = kBf16, .scale_type = kBf16, .scale = 1e-25});
  check({.m = 4, .n = 72, .k = 128, .bits = 6, .type = kBf16, .scale_type = kBf16, .scale = 1e30});
  check({.m = 4, .n = 72, .k = 128, .bits = 6, .type = kBf16, .scale_type = kBf16, .byte_operand = true, .scale = 1e30});
}

TEST_P(QuantizedGemmTest, smallActivationsKeepTheirPrecision) {
  Context context(GetParam());
  const Case c{.m = 2, .n = 64, .k = 128, .weights = kF8, .type = kBf16, .scale_type = kBf16, .scale = 1e20};
  Problem problem(context, c, 20261100);
  DeviceTensor a(context, c.type, {c.m, c.k}), out(context, c.type, {c.m, c.n});
  a.fill([](int64_t r, int64_t j) { return 1e-25 * static_cast<double>(1 + (r + 7 * j) % 31); });
  ASSERT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
  EXPECT_LE(error_of(out, problem.reference(a)), 5e-3);
}

TEST_P(QuantizedGemmTest, batchInvariantRowsHaveTheirOwnBits) {
  for (const int kind : {0, 1, 2, 3}) {
    SCOPED_TRACE(kind);
    Context context(GetParam());
    Case c{.m = 40, .n = 72, .k = 384, .batch_invariant = true};
    if (kind == 1) c.weights = kF8;
    if (kind > 1) c.bits = 6, c.byte_operand = kind == 3;
    Problem problem(context, c, 20261110);
    DeviceTensor a(context, problem.operand(), {c.m, c.k}), all(context, c.type, {c.m, c.n});
    problem.fill_operand(a, 20261111);
    problem.a_scale_->fill([](auto, auto) { return 0.5; });
    ASSERT_EQ(problem.multiply(a, all), CUL_OK) << cul_last_error();
    DeviceTensor one_scale(context, kF32, {1});
    one_scale.fill([](auto, auto) { return 0.5; });
    for (const int64_t row : {0, 17, 39}) {
      DeviceTensor one(context, problem.operand(), {1, c.k}), out(context, c.type, {1, c.n});
      one.fill([&](auto, int64_t j) { return a.get(row, j); });
      ASSERT_EQ(problem.multiply(one, out, [&](auto& args) { if constexpr (requires { args.a_scale; }) args.a_scale = &one_scale.tensor; }),
                CUL_OK) << cul_last_error();
      for (int64_t j = 0; j < c.n; ++j) ASSERT_EQ(out.get(0, j), all.get(row, j)) << row << ", " << j;
    }
  }
}

TEST_P(QuantizedGemmTest, notANumberStaysWhereItCameFrom) {
  for (const Case& c : {Case{.m = 10, .n = 72, .k = 131}, Case{.m = 10, .n = 72, .k = 131, .weights = kF8}, Case{.m = 10, .n = 72, .k = 131, .bits = 6},
                        Case{.m = 10, .n = 72, .k = 131, .bits = 6, .byte_operand = true}}) {
    Context context(GetParam());
    Problem problem(context, c, 20261120);
    DeviceTensor a(context, problem.operand(), {c.m, c.k}), out(context, c.type, {c.m, c.n});
    problem.fill_operand(a, 20261121);
    if (c.byte_operand) problem.a_scale_->set(0, 3, NAN), problem.a_scale_->upload();
    else a.set(3, 130, NAN), a.upload();
    problem.scales_->download();
    problem.scales_->set(1, 7, NAN);  // of column 7
    problem.scales_->upload();
    ASSERT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
    for (int64_t r = 0; r < c.m; ++r)
      for (int64_t j = 0; j < c.n; ++j) ASSERT_EQ(std::isnan(out.get(r, j)), r == 3 || j == 7) << r << ", " << j;
  }
}

TEST_P(QuantizedGemmTest, noTokens) {
  Context context(GetParam());
  Problem problem(context, {.m = 0, .n = 72, .k = 64, .group = 32, .act_order = true}, 20261130);
  DeviceTensor a(context, kF16, {0, 64}), out(context, kF16, {0, 72});
  EXPECT_EQ(problem.multiply(a, out), CUL_OK) << cul_last_error();
  Problem bytes(context, {.m = 0, .n = 72, .k = 64, .bits = 6, .byte_operand = true}, 20261131);
  DeviceTensor b(context, kI8, {0, 64});
  EXPECT_EQ(bytes.multiply(b, out), CUL_OK) << cul_last_error();
}

TEST_P(QuantizedGemmTest, refusals) {
  Context context(GetParam());
  const Case c{.m = 2, .n = 72, .k = 256};
  const Case six{.m = 2, .n = 72, .k = 256, .bits = 6}, bytes{.m = 2, .n = 72, .k = 256, .bits = 6, .byte_operand = true},
      blocks{.m = 2, .n = 72, .k = 256, .weights = kF8, .scale_type = kF32, .block128 = true};
  const auto refused = [&](const Case& c, cul_status status, const char* text, auto change) {
    Problem problem(context, c, 20261140);
    DeviceTensor a(context, problem.operand(), {c.m, c.k}), out(context, c.type, {c.m, c.n});
    problem.fill_operand(a, 1);
    EXPECT_EQ(problem.multiply(a, out, change), status) << text;
    EXPECT_NE(std::string(cul_last_error()).find(text), std::string::npos) << cul_last_error() << " lacks " << text;
    out.download();
    EXPECT_TRUE(std::all_of(out.image.begin(), out.image.end(), [](std::byte b) { return b == std::byte{0x5a}; }));
  };
  DeviceTensor wide(context, kF16, {2, 264}), floats(context, kF32, {2, 256}), zeros(context, kU8, {2, 128}), perm(context, kI32, {256}), one(context, kF32, {1});
  refused(c, CUL_SHAPE, "w8a16_gemm: a is [2, 264]", [&](auto& x) { x.a = &wide.tensor; });
  refused(c, CUL_DTYPE, "a is f32", [&](auto& x) { x.a = &floats.tensor; });
  refused(c, CUL_NULL_POINTER, "packed_scales", [](auto& x) { x.packed_scales = nullptr; });
  refused(c, CUL_SHAPE, "N = 0", [](auto& x) { x.n = 0; });
  refused(c, CUL_SHAPE, "packed_scales is [2, ", [](auto& x) { x.n = 300; });
  refused(c, CUL_SHAPE, "do not hold K = 256", [](auto& x) { if constexpr (requires { x.packed_group; }) x.packed_group = 64; });
  refused(c, CUL_RANGE, "packed_group", [](auto& x) { if constexpr (requires { x.packed_group; }) x.packed_group = 48; });
  refused(c, CUL_RANGE, "epilogue", [](auto& x) { x.epilogue = 3; });
  refused(c, CUL_SHAPE, "c is [2, 72]", [](auto& x) { x.epilogue = CUL_EPILOGUE_SILU_MUL; });
  refused(blocks, CUL_UNSUPPORTED, "packed_zeros", [&](auto& x) { if constexpr (requires { x.packed_zeros; }) x.packed_zeros = &zeros.tensor; });
  refused(blocks, CUL_UNSUPPORTED, "perm", [&](auto& x) { if constexpr (requires { x.perm; }) x.perm = &perm.tensor; });
  refused(six, CUL_RANGE, "packed_group (of 6-bit weights) is 64", [](auto& x) { if constexpr (requires { x.packed_group; }) x.packed_group = 64; });
  refused(bytes, CUL_NULL_POINTER, "w6a8_gemm: a_scale", [](auto& x) { if constexpr (requires { x.a_scale; }) x.a_scale = nullptr; });
  refused(bytes, CUL_SHAPE, "a_scale is [1]", [&](auto& x) { if constexpr (requires { x.a_scale; }) x.a_scale = &one.tensor; });
  refused(bytes, CUL_DTYPE, "a is f16", [&](auto& x) { x.a = &wide.tensor; });
}

INSTANTIATE_TEST_SUITE_P(, QuantizedGemmTest, ::testing::ValuesIn(backends_here()), backend_test_name);

TEST(QuantizedGemmPlan, tilesSplitsAndWhatFollows) {
  QuantizedGemmParams p{};
  p.n = p.n_padded = 4096, p.k = p.k_padded = 4096, p.bits = 8, p.dtype = DType::f16, p.group = 128;
  std::string reason;
  for (const auto& [m, tokens] : {std::pair{1, 8}, {8, 8}, {9, 32}, {32, 32}, {33, 128}, {4096, 128}}) {
    p.m = m;
    EXPECT_EQ(plan_quantized_gemm(p, 132, &reason).tile_tokens, tokens) << m;
  }
  p.m = 1;
  const QuantizedGemmPlan one = plan_quantized_gemm(p, 132, &reason);
  EXPECT_EQ(one.splits, 8);  // 32 blocks for 2 x 132 places
  EXPECT_EQ(one.slices_per_split, 8);
  EXPECT_FALSE(one.fused);
  EXPECT_EQ(one.workspace_bytes, 8u * 4096 * 4);
  EXPECT_NE(reason.find("8 x 128 tiles: 32 blocks for 132 SMs; k in 8 splits of 512 rows"), std::string::npos) << reason;
  p.dtype = DType::i8;  // slices of 128 rows
  EXPECT_EQ(plan_quantized_gemm(p, 132, &reason).slices_per_split, 4);
  p.dtype = DType::f16;
  p.batch_invariant = true;
  const QuantizedGemmPlan invariant = plan_quantized_gemm(p, 132, &reason);
  EXPECT_EQ(invariant.tile_tokens, 128);
  EXPECT_EQ(invariant.splits, 1);
  EXPECT_TRUE(invariant.fused);
  p.epilogue = CUL_EPILOGUE_SILU_MUL;
  EXPECT_TRUE(plan_quantized_gemm(p, 132, &reason).fused);
  p.n = 4090;
  EXPECT_FALSE(plan_quantized_gemm(p, 132, &reason).fused);
  EXPECT_NE(reason.find("not whole blocks of 64 columns"), std::string::npos) << reason;
  int32_t perm = 0;
  p.perm = &perm;
  EXPECT_EQ(plan_quantized_gemm(p, 132, &reason).partials_offset, 4096u * 2);
  p.m = 0;
  EXPECT_EQ(plan_quantized_gemm(p, 132, &reason).workspace_bytes, 0u);
}

}  // namespace
}  // namespace culebra

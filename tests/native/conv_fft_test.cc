// conv_fft on every backend against the sum in double: sizes around the plan's borders, odd channels, strides, and what must be the same bits.
#include "ops/linear_attention/conv_fft.h"

#include "backends/backend.h"
#include "culebra/linear_attention.h"
#include "glue_harness.h"

namespace culebra {
namespace {

using glue_testing::bound_of;
using glue_testing::Machine;
using glue_testing::Tensor;

struct Shape {
  int64_t B, T, C, L;
};

struct Problem {
  // Channels come in padded rows; an odd pad makes accesses of two channels impossible.
  Problem(Machine& m, DType type, Shape s, int64_t pad = 2, bool with_skip = true, DType skip_type = DType::f32)
      : machine(m), s(s), with_skip(with_skip),
        x(m, type, {s.B, s.T, s.C}, {s.T * (s.C + pad) + pad, s.C + pad, 1}),
        y(m, type, {s.B, s.T, s.C}, {s.T * (s.C + pad) + pad, s.C + pad, 1}),
        filter(m, DType::f32, {s.C, s.L}, {s.L + pad, 1}), skip(m, skip_type, {s.C}) {
    std::mt19937_64 random(static_cast<uint64_t>(s.T * 31 + s.L));
    x.normal(random);
    filter.normal(random, 1 / std::sqrt(static_cast<double>(s.L + 1)));
    skip.normal(random);
    y.fill([](int64_t) { return 77.0; });
  }

  void run(uint32_t flags = 0) {
    auto args = glue_testing::args_of<cul_conv_fft_args>();
    args.x = x;
    args.filter = filter;
    if (with_skip) args.skip = skip;
    args.y = y;
    args.call.flags = flags | CUL_OP_PLAN_ONLY;
    ASSERT_EQ(cul_conv_fft(machine.stream, &args), CUL_OK) << cul_last_error();
    plan = cul_last_plan();
    void* workspace = nullptr;
    const uint64_t bytes = cul_last_workspace_bytes();
    if (bytes) {
      ASSERT_EQ(cul_memory_alloc(machine.device, bytes, &workspace), CUL_OK) << cul_last_error();
      ASSERT_EQ(cul_fill(machine.stream, workspace, 0xff, bytes), CUL_OK) << cul_last_error();
    }
    args.call.flags = flags;
    args.call.workspace = workspace;
    args.call.workspace_bytes = bytes;
    ASSERT_EQ(cul_conv_fft(machine.stream, &args), CUL_OK) << cul_last_error();
    y.read();
    if (workspace) {
      ASSERT_EQ(cul_memory_free(machine.device, workspace), CUL_OK) << cul_last_error();
    }
  }

  // rms(y - sum) / rms(sum) over every `every`-th token.
  double error(int64_t every = 1) const {
    std::vector<double> in(static_cast<size_t>(s.T)), taps(static_cast<size_t>(s.L));
    double difference = 0, norm = 0;
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t c = 0; c < s.C; ++c) {
        for (int64_t t = 0; t < s.T; ++t) in[static_cast<size_t>(t)] = x[(b * s.T + t) * s.C + c];
        for (int64_t k = 0; k < s.L; ++k) taps[static_cast<size_t>(k)] = filter[c * s.L + k];
        for (int64_t t = s.T - 1; t >= 0; t -= every) {
          double sum = with_skip ? skip[c] * in[static_cast<size_t>(t)] : 0;
          for (int64_t k = 0; k < std::min(s.L, t + 1); ++k) sum += taps[static_cast<size_t>(k)] * in[static_cast<size_t>(t - k)];
          const double off = y[(b * s.T + t) * s.C + c] - sum;
          difference += off * off;
          norm += sum * sum;
        }
      }
    return std::sqrt(difference / std::max(norm, 1e-300));
  }

  Machine& machine;
  Shape s;
  bool with_skip;
  Tensor x, y, filter, skip;
  std::string plan;
};

TEST(ConvFft, isTheSumOnEveryBackend) {
  const Shape shapes[] = {{1, 1, 1, 1}, {2, 7, 3, 7}, {1, 40, 5, 0}, {1, 90, 4, 64}, {2, 70, 3, 66}, {1, 200, 2, 65}, {2, 257, 3, 129},
                          {1, 300, 7, 300}, {1, 700, 2, 100}, {1, 1000, 1, 700}, {2, 400, 67, 300}, {1, 300, 66, 290}, {1, 640, 33, 600}, {2, 560, 3, 513},
                          {1, 2100, 2, 2100}};
  for (const int32_t backend : glue_testing::backends()) {
    Machine m(backend);
    int64_t i = 0;
    for (const Shape& s : shapes)
      for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
        const int64_t pad = ++i % 3;
        const bool same_skip = i % 2;
        Problem p(m, type, s, pad, i % 5 != 0, same_skip ? type : DType::f32);
        p.run();
        EXPECT_LE(p.error(), bound_of(type)) << "backend " << backend << " " << s.B << " " << s.T << " " << s.C << " " << s.L << ": " << p.plan;
      }
  }
}

TEST(ConvFft, filtersThatNoWindowHoldsComeInParts) {
  for (const int32_t backend : glue_testing::backends()) {
    Machine m(backend);
    for (const Shape& s : {Shape{2, 16500, 3, 16400}, Shape{1, 33000, 1, 20000}, Shape{1, 16400, 9, 16390}}) {
      Problem p(m, DType::f32, s);
      p.run();
      EXPECT_LE(p.error(137), 1e-6) << p.plan;
      EXPECT_EQ(p.plan.find("parts") != std::string::npos, backend != CUL_BACKEND_CPU) << p.plan;
    }
  }
}

// A plan for little memory and small windows: pairs of channels and rows of the batch in several launches.
TEST(ConvFft, littleMemoryMeansManyLaunches) {
#if CULEBRA_HAS_SIMT
  Machine m(CUL_BACKEND_SIMT);
  for (const Shape& s : {Shape{3, 700, 11, 600}, Shape{5, 300, 21, 200}, Shape{2, 300, 7, 200}}) {
    Problem p(m, DType::f32, s, 1);
    auto rows = [&](const Tensor& t) {
      const auto* d = static_cast<const cul_tensor*>(t);
      return ConvFftParams::Rows{static_cast<char*>(d->data) + d->byte_offset, d->strides[0], d->strides[1]};
    };
    ConvFftParams params;
    params.batch = s.B;
    params.tokens = s.T;
    params.channels = s.C;
    params.taps = s.L;
    params.x = rows(p.x);
    params.y = rows(p.y);
    params.filter = static_cast<const float*>(rows(p.filter).data);
    params.filter_stride = s.L + 1;
    params.skip = rows(p.skip).data;
    params.skip_is_f32 = true;
    params.plan = plan_conv_fft(s.B, s.T, s.C, s.L, {9, 0, 0, s.L > 512 ? 64 << 10 : s.C > 8 ? 32 << 10 : 8 << 10, 4}, &p.plan);
    EXPECT_LT(params.plan.pairs_at_once * params.plan.rows_at_once, params.pairs() * s.B) << p.plan;
    const auto bytes = static_cast<uint64_t>((params.plan.filter_points() + params.plan.input_points()) * 8 + 8 * params.plan.copy_elems(s.T));
    ASSERT_EQ(cul_memory_alloc(m.device, bytes, &params.workspace), CUL_OK) << cul_last_error();
    simt::conv_fft(params, Stream::from(m.stream)->simt());
    p.y.read();
    EXPECT_LE(p.error(), 1e-6) << p.plan;
    EXPECT_EQ(cul_memory_free(m.device, params.workspace), CUL_OK);
  }
#endif
}

// x is exact in products of halves and the filter nearly so: nothing but the last rounding, 2^-12 and 2^-9 of a number at most, is left. Scales of filters
// lie where one part, or one without a scale, loses them.
TEST(ConvFft, blocksOnTensorCoresKeepTheFilter) {
#if CULEBRA_HAS_SIMT
  Machine m(CUL_BACKEND_SIMT);
  for (const Shape& s : {Shape{4, 40, 5, 17}, Shape{2, 300, 5, 33}, Shape{1, 1030, 17, 129}, Shape{1, 2300, 8, 256}, Shape{3, 130, 24, 130}, Shape{1, 1100, 3, 512}})
    for (const DType type : {DType::f16, DType::bf16})
      for (const double size : {1.0, 1e-8, 1e4}) {
        Problem p(m, type, s, s.C % 8 ? 1 : 8, false);
        p.filter.fill([&](int64_t i) { return size * p.filter[i]; });
        p.x.fill([&](int64_t i) { return (size == 1e4 ? 1e-4 : size == 1e-8 ? 1e4 : 1.0) * p.x[i]; });
        p.run();
        EXPECT_NE(p.plan.find("Toeplitz"), std::string::npos) << p.plan;
        if (type == DType::bf16 || size != 1e-8) {
          EXPECT_LE(p.error(), type == DType::f16 ? 2.5e-4 : 1.9e-3) << s.T << " " << s.L << " " << size;
        }
      }
#endif
}

TEST(ConvFft, isAccurateInManyTokens) {
  Machine m(CUL_BACKEND_CPU);
  Problem p(m, DType::f32, {1, 65536, 2, 65536});
  p.run();
  EXPECT_LE(p.error(517), 1e-6) << p.plan;
}

TEST(ConvFft, rowsDoNotDependOnTheirCompany) {
  for (const int32_t backend : glue_testing::backends()) {
    Machine m(backend);
    Problem many(m, DType::f32, {3, 400, 3, 300}), one(m, DType::f32, {1, 400, 3, 300});
    many.run();
    const std::vector<unsigned char> first = many.y.bytes();
    many.run();
    EXPECT_EQ(many.y.bytes(), first);
    one.filter.fill([&](int64_t i) { return many.filter[i]; });
    one.skip.fill([&](int64_t i) { return many.skip[i]; });
    for (int64_t b = 0; b < 3; ++b) {
      one.x.fill([&](int64_t i) { return many.x[b * 1200 + i]; });
      one.run(CUL_OP_BATCH_INVARIANT);
      for (int64_t i = 0; i < 1200; ++i) ASSERT_EQ(one.y[i], many.y[b * 1200 + i]) << b << " " << i;
    }
  }
}

TEST(ConvFft, noWorkSucceeds) {
  for (const int32_t backend : glue_testing::backends()) {
    Machine m(backend);
    for (const Shape& s : {Shape{0, 8, 4, 8}, Shape{2, 0, 4, 0}, Shape{2, 0, 4, 5}, Shape{2, 8, 0, 8}}) Problem(m, DType::bf16, s).run();
  }
}

TEST(ConvFft, plansAreTheCheapest) {
  std::string reason;
  const ConvFftLimits device{14, 64, 0, int64_t{64} << 20};
  EXPECT_TRUE(plan_conv_fft(1, 4096, 8, 64, device, &reason).form == ConvFftPlan::Form::taps) << reason;

  ConvFftPlan plan = plan_conv_fft(2, 4096, 8, 4096, device, &reason);
  EXPECT_EQ(plan.log2_points, 13) << reason;
  EXPECT_EQ(plan.windows, 1) << reason;
  EXPECT_EQ(plan.pairs_at_once, 4);
  EXPECT_EQ(plan.input_points(), 0);
  EXPECT_FALSE(plan.copies);
  EXPECT_TRUE(plan_conv_fft(2, 4096, 10, 4096, device, &reason).copies) << reason;

  // A short filter over many tokens: windows of some times its taps, not one of everything.
  plan = plan_conv_fft(1, 1 << 20, 8, 128, device, &reason);
  EXPECT_EQ(plan.parts, 1) << reason;
  EXPECT_GE(plan.points(), 512) << reason;
  EXPECT_LE(plan.points(), 4096) << reason;
  EXPECT_EQ(plan.hop, plan.points() - 127);
  EXPECT_GE(plan.windows * plan.hop, 1 << 20);
  EXPECT_LT((plan.windows - 1) * plan.hop, 1 << 20);

  // One that no window holds; memory holds some pairs of channels at a time.
  plan = plan_conv_fft(4, 1 << 17, 4096, 1 << 17, device, &reason);
  EXPECT_EQ(plan.hop, 8192) << reason;
  EXPECT_EQ(plan.parts, 16);
  EXPECT_EQ(plan.windows, 16);
  EXPECT_LT(plan.pairs_at_once, 2048);
  EXPECT_LE((plan.filter_points() + plan.input_points()) * 8 + 2 * 4 * plan.copy_elems(1 << 17), device.scratch_bytes);

  // More than the memory for one pair: one pair and one row.
  plan = plan_conv_fft(4, 1 << 24, 6, 1 << 24, device, &reason);
  EXPECT_EQ(plan.pairs_at_once, 1) << reason;
  EXPECT_EQ(plan.rows_at_once, 1);
  EXPECT_GE(plan.parts * plan.hop, 1 << 24);

  // A device with less shared memory has smaller windows.
  DeviceCaps caps;
  caps.backend = CUL_BACKEND_CUDA;
  caps.shared_bytes_per_block = 99 << 10;
  EXPECT_EQ(conv_fft_limits(caps, DType::f32).log2_points, 13);
  caps.shared_bytes_per_block = 227 << 10;
  EXPECT_EQ(conv_fft_limits(caps, DType::f32).log2_points, 14);
}

// Every cut covers what it must: each output's inputs and taps meet in a window.
TEST(ConvFft, windowsHoldWhatTheirOutputsNeed) {
  std::string reason;
  for (const int64_t tokens : {1, 2, 100, 255, 256, 257, 3000, 8192, 8193, 16384, 16385, 100000})
    for (const int64_t taps : {1, 65, 128, 129, 1000, 8192, 8193, 9000, 16384, 20000, 100000}) {
      if (taps > tokens) continue;
      for (const int log2 : {12, 14, 40}) {
        const ConvFftPlan plan = plan_conv_fft(1, tokens, 2, taps, {log2, 64, 0, log2 == 40 ? 0 : 1 << 26}, &reason);
        if (plan.form == ConvFftPlan::Form::taps) {
          EXPECT_LE(taps, 64);
          continue;
        }
        EXPECT_LE(plan.log2_points, log2);
        EXPECT_GE(plan.windows * plan.hop, tokens) << reason;
        const int64_t taps_a_part = plan.parts == 1 ? taps : plan.hop;
        EXPECT_LE(taps_a_part, plan.points() - plan.hop + 1) << reason;
        EXPECT_GE(taps_a_part * plan.parts, taps) << reason;
      }
    }
}

}  // namespace
}  // namespace culebra

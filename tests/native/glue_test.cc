// The glue operators through the C ABI, on every backend and instruction set of this build, against formulas in double.
#include "backends/cpu/simd.h"
#include "glue_harness.h"
#include "hwy/targets.h"

namespace culebra {
namespace {

using namespace glue_testing;

struct Case {
  int32_t backend;
  int64_t simd_target;  // cpu: hwy's, 0 elsewhere
  DType type;
  bool padded;
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (DType type : {DType::f32, DType::f16, DType::bf16})
    for (bool padded : {false, true}) {
      for (const int64_t target : {HWY_AVX3, HWY_AVX2, HWY_SSE4, HWY_NEON})
        if (hwy::SupportedTargets() & target & HWY_TARGETS) list.push_back({CUL_BACKEND_CPU, target, type, padded});
#if CULEBRA_HAS_SIMT
      list.push_back({CUL_BACKEND_SIMT, 0, type, padded});
#endif
    }
  return list;
}

class Glue : public testing::TestWithParam<Case> {
 protected:
  Glue() : m(GetParam().backend), type(GetParam().type) {
    if (GetParam().simd_target) hwy::SetSupportedTargetsForTest(GetParam().simd_target);
  }
  ~Glue() override { hwy::SetSupportedTargetsForTest(0); }

  // Strides of rows with a gap that keeps (even) or breaks (odd columns) their alignment.
  std::vector<int64_t> pad(const std::vector<int64_t>& shape) const {
    if (!GetParam().padded) return {};
    std::vector<int64_t> strides(shape.size(), 1);
    int64_t step = shape.back() + 8;
    for (size_t i = shape.size() - 1; i-- > 0; step *= shape[i]) strides[i] = step;
    return strides;
  }
  Tensor tensor(const std::vector<int64_t>& shape) { return Tensor(m, type, shape, pad(shape)); }

  Machine m;
  DType type;
  const uint64_t seed = 20240817;
  std::mt19937_64 random{seed};
  double rounded(double x) const {
    if (type == DType::f16) return to_float(from_float<half_t>(static_cast<float>(x)));
    if (type == DType::bf16) return to_float(from_float<bfloat16_t>(static_cast<float>(x)));
    return static_cast<float>(x);
  }
};

INSTANTIATE_TEST_SUITE_P(Backends, Glue, testing::ValuesIn(cases()), [](const auto& info) {
  return std::string(cul_backend_name(info.param.backend)) + "_" +
         (info.param.simd_target ? std::string(hwy::TargetName(info.param.simd_target)) + "_" : "") +
         name_of(info.param.type) + (info.param.padded ? "_padded" : "");
});

const std::pair<int64_t, int64_t> kShapes[] = {{1, 1}, {3, 7}, {2, 64}, {5, 129}, {9, 1032}, {2, 2048}, {1, 17001}, {0, 16}, {4, 0}};

TEST_P(Glue, RmsNorm) {
  for (auto [rows, columns] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns);
    Tensor x = tensor({rows, columns}), w(m, type, {columns}), r = tensor({rows, columns}), y = tensor({rows, columns}),
           h = tensor({rows, columns});
    x.normal(random), w.normal(random), r.normal(random);
    for (int mode = 0; mode < 4; ++mode) {  // plain; zero centered; residual; residual in place
      std::vector<double> want, sum;
      for (int64_t t = 0; t < rows; ++t) {
        double squares = 0;
        for (int64_t i = t * columns; i < (t + 1) * columns; ++i) {
          sum.push_back(mode >= 2 ? rounded(x[i] + r[i]) : x[i]);
          squares += sum.back() * sum.back();
        }
        for (int64_t i = 0; i < columns; ++i)
          want.push_back(sum[static_cast<size_t>(t * columns + i)] / std::sqrt(squares / static_cast<double>(columns) + 1e-6) *
                         (w[i] + (mode == 1)));
      }
      auto args = args_of<cul_rms_norm_args>();
      args.x = x, args.weight = w, args.y = y, args.eps = 1e-6f, args.zero_centered = mode == 1;
      if (mode >= 2) args.residual = r, args.residual_out = mode == 2 ? h : r;
      run(m, cul_rms_norm, args, {&y}, mode == 3);
      expect_close(y, want);
      if (mode < 2) continue;
      const Tensor& stored = (mode == 2 ? h : r).read();
      for (int64_t i = 0; i < stored.elements(); ++i) ASSERT_EQ(stored[i], sum[static_cast<size_t>(i)]) << "rounded otherwise";
    }
  }
}

TEST_P(Glue, RmsNormInPlaceGivesTheSameBits) {
  Tensor x = tensor({4, 130}), w(m, type, {130}), y = tensor({4, 130});
  x.normal(random), w.normal(random);
  auto args = args_of<cul_rms_norm_args>();
  args.x = x, args.weight = w, args.y = y, args.eps = 1e-5f;
  run(m, cul_rms_norm, args, {&y});
  args.y = x;
  run(m, cul_rms_norm, args, {&x}, true);
  EXPECT_EQ(x.bytes(), y.bytes());
}

TEST_P(Glue, LayerNorm) {
  for (auto [rows, columns] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns);
    Tensor x = tensor({rows, columns}), w(m, type, {columns}), b(m, type, {columns}), y = tensor({rows, columns});
    x.normal(random, 1, 10), w.normal(random), b.normal(random);
    for (bool bias : {true, false}) {
      std::vector<double> want;
      for (int64_t t = 0; t < rows; ++t) {
        double mean = 0, squares = 0;
        for (int64_t i = 0; i < columns; ++i) mean += x[t * columns + i] / static_cast<double>(columns);
        for (int64_t i = 0; i < columns; ++i) squares += std::pow(x[t * columns + i] - mean, 2) / static_cast<double>(columns);
        for (int64_t i = 0; i < columns; ++i)
          want.push_back((x[t * columns + i] - mean) / std::sqrt(squares + 1e-5) * w[i] + (bias ? b[i] : 0));
      }
      auto args = args_of<cul_layer_norm_args>();
      args.x = x, args.weight = w, args.bias = bias ? static_cast<const cul_tensor*>(b) : nullptr, args.y = y, args.eps = 1e-5f;
      run(m, cul_layer_norm, args, {&y});
      expect_close(y, want);
    }
    auto args = args_of<cul_layer_norm_args>();
    args.x = x, args.weight = w, args.y = x, args.eps = 1e-5f;
    run(m, cul_layer_norm, args, {&x}, true);
    for (int64_t i = 0; i < x.elements(); ++i) ASSERT_EQ(x[i], y[i]);
  }
}

TEST_P(Glue, GatedProducts) {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  for (auto [rows, columns] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns);
    for (double scale : {1.0, 60.0}) {
      Tensor gate = tensor({rows, columns}), up = tensor({rows, columns}), y = tensor({rows, columns});
      gate.normal(random, scale), up.normal(random);
      const auto check = [&](const std::function<double(double)>& f) {
        std::vector<double> want;
        for (int64_t i = 0; i < y.elements(); ++i) want.push_back(f(gate[i]) * up[i]);
        expect_close(y, want);
      };
      auto silu = args_of<cul_silu_mul_args>();
      silu.gate = gate, silu.up = up, silu.y = y;
      run(m, cul_silu_mul, silu, {&y});
      check([&](double x) { return x * sigmoid(x); });
      auto gelu = args_of<cul_gelu_mul_args>();
      gelu.gate = gate, gelu.up = up, gelu.y = y, gelu.form = CUL_GELU_ERF;
      run(m, cul_gelu_mul, gelu, {&y});
      check([](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); });
      gelu.form = CUL_GELU_TANH;
      run(m, cul_gelu_mul, gelu, {&y});
      check([](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); });
      auto gated = args_of<cul_sigmoid_mul_args>();
      gated.x = up, gated.gate = gate, gated.y = y;
      run(m, cul_sigmoid_mul, gated, {&y});
      check(sigmoid);
      silu.y = gate;
      const std::vector<double> before = [&] {
        std::vector<double> v;
        for (int64_t i = 0; i < gate.elements(); ++i) v.push_back(gate[i] * sigmoid(gate[i]) * up[i]);
        return v;
      }();
      run(m, cul_silu_mul, silu, {&gate}, true);
      expect_close(gate, before);
    }
    if (columns < 2) continue;
    Tensor x = tensor({rows, columns}), gate = tensor({rows, 1}), y = tensor({rows, columns});
    x.normal(random), gate.normal(random);
    auto args = args_of<cul_sigmoid_mul_args>();
    args.x = x, args.gate = gate, args.y = y;
    run(m, cul_sigmoid_mul, args, {&y});
    std::vector<double> want;
    for (int64_t i = 0; i < y.elements(); ++i) want.push_back(sigmoid(gate[i / columns]) * x[i]);
    expect_close(y, want);
  }
}

TEST_P(Glue, SpecialValues) {
  const double nan = std::nan("");
  Tensor gate(m, type, {1, 6}), one(m, type, {1, 6}), y(m, type, {1, 6});
  gate.fill([&](int64_t i) { return std::vector<double>{nan, kInfinity, -kInfinity, 100, -100, 0}[static_cast<size_t>(i)]; });
  one.fill([](int64_t) { return 1; });
  auto silu = args_of<cul_silu_mul_args>();
  silu.gate = gate, silu.up = one, silu.y = y;
  run(m, cul_silu_mul, silu, {&y});
  expect_close(y, {nan, kInfinity, nan, 100, 0, 0});
  auto sigmoid = args_of<cul_sigmoid_mul_args>();
  sigmoid.x = one, sigmoid.gate = gate, sigmoid.y = y;
  run(m, cul_sigmoid_mul, sigmoid, {&y});
  expect_close(y, {nan, 1, 0, 1, 0, 0.5});
}

TEST_P(Glue, Rope) {
  struct Shape {
    int64_t tokens, heads, channels, turned;
  };
  for (Shape s : {Shape{1, 1, 2, 2}, {5, 3, 64, 64}, {4, 2, 80, 32}, {3, 5, 70, 34}, {2, 3, 33, 6}, {7, 2, 128, 128}, {2, 2, 8, 0}, {0, 2, 8, 8}})
    for (bool interleaved : {false, true}) {
      SCOPED_TRACE(testing::Message() << s.tokens << " x " << s.heads << " x " << s.channels << " R " << s.turned
                                      << (interleaved ? " interleaved" : ""));
      const int64_t table = 40, half = s.turned / 2;
      Tensor x = tensor({s.tokens, s.heads, s.channels}), y = tensor({s.tokens, s.heads, s.channels});
      Tensor cos(m, DType::f32, {table, half}, {half + 1, 1}), sin(m, DType::f32, {table, half}), positions(m, DType::i64, {s.tokens});
      x.normal(random);
      const auto angle = [&](int64_t i) {
        const double channel = static_cast<double>(i % half) / static_cast<double>(half);
        return static_cast<double>(i / half) * std::pow(1e4, -channel);
      };
      cos.fill([&](int64_t i) { return std::cos(angle(i)); });
      sin.fill([&](int64_t i) { return std::sin(angle(i)); });
      positions.fill([&](int64_t t) { return t == 3 ? -1 : t == 2 ? 1000 : static_cast<double>(random() % table); });
      std::vector<double> want;
      for (int64_t i = 0; i < x.elements(); ++i) {
        const int64_t c = i % s.channels, position = static_cast<int64_t>(positions[i / s.channels / s.heads]);
        if (c >= s.turned || position < 0 || position >= table) {
          want.push_back(x[i]);
          continue;
        }
        const int64_t pair = interleaved ? c / 2 : c % half;
        const bool second = interleaved ? c % 2 : c >= half;
        const int64_t partner = i + (second ? -1 : 1) * (interleaved ? 1 : half);
        want.push_back(x[i] * cos[position * half + pair] + (second ? 1 : -1) * x[partner] * sin[position * half + pair]);
      }
      auto args = args_of<cul_rope_args>();
      args.x = x, args.cos = cos, args.sin = sin, args.positions = positions, args.y = y, args.interleaved = interleaved;
      run(m, cul_rope, args, {&y});
      expect_close(y, want);
      args.y = x;
      run(m, cul_rope, args, {&x}, true);
      for (int64_t i = 0; i < x.elements(); ++i) ASSERT_EQ(x[i], y[i]);
    }
}

TEST_P(Glue, Softmax) {
  for (auto [rows, columns] : kShapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << columns);
    Tensor x = tensor({rows, columns}), y = tensor({rows, columns});
    std::normal_distribution<double> d(0, 8);
    x.fill([&](int64_t i) { return i % 5 == 3 || (rows > 3 && i / columns == 2) ? -kInfinity : d(random); });
    std::vector<double> want;
    for (int64_t t = 0; t < rows; ++t) {
      double largest = -kInfinity, sum = 0;
      for (int64_t i = 0; i < columns; ++i) largest = std::max(largest, x[t * columns + i]);
      for (int64_t i = 0; i < columns; ++i) sum += std::exp(x[t * columns + i] - largest);
      for (int64_t i = 0; i < columns; ++i) want.push_back(std::exp(x[t * columns + i] - largest) / sum);
    }
    auto args = args_of<cul_softmax_args>();
    args.x = x, args.y = y;
    run(m, cul_softmax, args, {&y});
    expect_close(y, want);
  }
}

TEST_P(Glue, Argmax) {
  for (auto [rows, columns] : kShapes) {
    if (columns == 0) continue;
    for (int kind = 0; kind < 4; ++kind) {  // distinct; many ties; NaN; -inf and signed zeros
      SCOPED_TRACE(testing::Message() << rows << " x " << columns << " kind " << kind);
      Tensor x = tensor({rows, columns}), ids(m, DType::i32, {rows});
      x.fill([&](int64_t) {
        const auto draw = static_cast<double>(random() % 1000);
        if (kind == 0) return draw * 0.5;
        if (kind == 1) return std::floor(draw / 250);
        if (kind == 2) return draw < 3 ? std::nan("") : draw;
        return draw < 900 ? -kInfinity : draw < 950 ? -0.0 : 0.0;
      });
      auto args = args_of<cul_argmax_args>();
      args.x = x, args.ids = ids;
      run(m, cul_argmax, args, {&ids});
      for (int64_t t = 0; t < rows; ++t) {
        int64_t best = 0;
        for (int64_t i = 1; i < columns; ++i) {
          const double a = x[t * columns + i], b = x[t * columns + best];
          if (!std::isnan(b) && (std::isnan(a) || a > b)) best = i;
        }
        EXPECT_EQ(ids[t], static_cast<double>(best)) << "row " << t;
      }
    }
  }
}

TEST_P(Glue, Embedding) {
  for (int64_t columns : {1, 17, 64, 0})
    for (DType id_type : {DType::i32, DType::i64}) {
      Tensor table = tensor({20, columns}), y = tensor({9, columns}), ids(m, id_type, {9});
      table.normal(random);
      ids.fill([](int64_t t) { return std::vector<double>{3, -1, 19, 0, 20, 7, -2, 1e6, 3}[static_cast<size_t>(t)]; });
      auto args = args_of<cul_embedding_args>();
      args.table = table, args.ids = ids, args.y = y;
      run(m, cul_embedding, args, {&y});
      for (int64_t i = 0; i < y.elements(); ++i) {
        const double id = ids[i / columns];
        EXPECT_EQ(y[i], id >= 0 && id < 20 ? table[static_cast<int64_t>(id) * columns + i % columns] : 0);
      }
    }
}

TEST_P(Glue, Elementwise) {
  struct Layout {
    std::vector<int64_t> shape, a, b, y;
  };
  const Layout layouts[] = {
      {{}, {}, {}, {}},                                             // rank 0
      {{1000}, {1}, {1}, {1}},                                      // one run
      {{6, 40}, {40, 1}, {0, 1}, {48, 1}},                          // broadcast rows, padded output
      {{6, 40}, {1, 6}, {40, 1}, {1, 6}},                           // transposed
      {{4, 5, 6}, {30, 6, 1}, {1, 4, 20}, {30, 6, 1}},              // one input permuted
      {{2, 3, 2, 3, 2, 5}, {360, 120, 60, 20, 10, 2}, {0, 1, 0, 3, 9, 0}, {180, 60, 30, 10, 5, 1}},
      {{0, 7}, {7, 1}, {7, 1}, {7, 1}},
      {{1, 33, 1}, {500, 2, 9}, {1, 1, 1}, {40, 1, 40}},
  };
  for (const Layout& l : layouts) {
    SCOPED_TRACE(testing::Message() << "layout " << &l - layouts);
    const int64_t shift = GetParam().padded ? 1 : 0;  // a base that allows no packs
    Tensor a(m, type, l.shape, l.a, shift), b(m, type, l.shape, l.b, shift), y(m, type, l.shape, l.y, shift);
    a.normal(random), b.normal(random);
    auto add = args_of<cul_add_args>();
    add.a = a, add.b = b, add.y = y;
    run(m, cul_add, add, {&y});
    for (int64_t i = 0; i < y.elements(); ++i) ASSERT_EQ(y[i], rounded(static_cast<float>(a[i]) + static_cast<float>(b[i]))) << i;
    auto scale = args_of<cul_scale_args>();
    scale.x = a, scale.y = y, scale.factor = 0.3f;
    run(m, cul_scale, scale, {&y});
    for (int64_t i = 0; i < y.elements(); ++i) ASSERT_EQ(y[i], rounded(static_cast<float>(a[i]) * 0.3f)) << i;
    auto copy = args_of<cul_copy_strided_args>();
    copy.x = b, copy.y = y;
    run(m, cul_copy_strided, copy, {&y});
    for (int64_t i = 0; i < y.elements(); ++i) ASSERT_EQ(y[i], b[i]) << i;
  }
  Tensor a(m, DType::i32, {3, 50}), b(m, DType::i32, {3, 50}), y(m, DType::i32, {3, 50});
  a.fill([](int64_t i) { return 2147483600.0 + static_cast<double>(i % 40); });
  b.fill([](int64_t) { return 100.0; });
  auto add = args_of<cul_add_args>();
  add.a = a, add.b = b, add.y = y;
  run(m, cul_add, add, {&y});
  for (int64_t i = 0; i < y.elements(); ++i) ASSERT_EQ(y[i], a[i] + 100 > 2147483647 ? a[i] + 100 - 4294967296 : a[i] + 100);
}

}  // namespace
}  // namespace culebra

// The glue family through the C ABI, on every backend of this build, against formulas in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/simd.h"
#include "culebra/glue.h"
#include "hwy/targets.h"
#include "ops/glue/elementwise.h"
#include "ops/glue/sample_weights.h"

namespace culebra {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

cul_dtype encoding(DType t) {
  switch (t) {
    case DType::f32: return {CUL_FLOAT, 32, 1};
    case DType::f16: return {CUL_FLOAT, 16, 1};
    case DType::bf16: return {CUL_BFLOAT, 16, 1};
    case DType::f8e4m3: return {CUL_FLOAT8_E4M3FN, 8, 1};
    case DType::i8: return {CUL_INT, 8, 1};
    case DType::u8: return {CUL_UINT, 8, 1};
    case DType::i32: return {CUL_INT, 32, 1};
    case DType::i64: return {CUL_INT, 64, 1};
    default: return {CUL_BOOL, 8, 1};
  }
}

class Machine {
 public:
  explicit Machine(int32_t backend) {
    EXPECT_EQ(cul_device_open(backend, 0, nullptr, &device), CUL_OK) << cul_last_error();
    EXPECT_EQ(cul_stream_create(device, &stream), CUL_OK) << cul_last_error();
    cul_device_info info{};
    info.struct_size = sizeof info;
    EXPECT_EQ(cul_device_get_info(device, &info), CUL_OK);
    id = info.id;
  }
  ~Machine() {
    cul_stream_destroy(stream);
    EXPECT_EQ(cul_device_close(device), CUL_OK) << cul_last_error();
  }
  Machine(const Machine&) = delete;

  cul_device* device = nullptr;
  cul_stream* stream = nullptr;
  cul_device_id id{};
};

// A tensor whose elements stand among bytes that must stay as they are. Values travel as double (i64 too: tests keep below 2^53).
class Tensor {
 public:
  Tensor(Machine& machine, DType type, std::vector<int64_t> shape, std::vector<int64_t> strides = {}, int64_t first = 0)
      : machine_(machine), type_(type), shape_(std::move(shape)), strides_(std::move(strides)), first_(first) {
    if (strides_.empty()) {
      strides_.resize(shape_.size());
      int64_t step = 1;
      for (size_t i = shape_.size(); i-- > 0; step *= shape_[i]) strides_[i] = step;
    }
    int64_t reach = first_;
    for (size_t i = 0; i < shape_.size(); ++i) reach += std::max<int64_t>(0, (shape_[i] - 1) * strides_[i]);
    bytes_.assign((static_cast<size_t>(reach) + 9) * size_of(type_), 0x5a);
    EXPECT_EQ(cul_memory_alloc(machine.device, bytes_.size(), &memory_), CUL_OK) << cul_last_error();
    descriptor_ = {memory_, machine.id, static_cast<int32_t>(shape_.size()), encoding(type_), shape_.data(), strides_.data(),
                   static_cast<uint64_t>(first_) * size_of(type_)};
    upload();
  }
  ~Tensor() { EXPECT_EQ(cul_memory_free(machine_.device, memory_), CUL_OK) << cul_last_error(); }
  Tensor(const Tensor&) = delete;

  operator const cul_tensor*() const { return &descriptor_; }
  int64_t elements() const { return std::accumulate(shape_.begin(), shape_.end(), int64_t{1}, std::multiplies<>()); }
  DType type() const { return type_; }
  const std::vector<int64_t>& shape() const { return shape_; }

  Tensor& fill(const std::function<double(int64_t)>& value) {
    for (int64_t i = 0; i < elements(); ++i) {
      unsigned char* to = bytes_.data() + offset(i) * size_of(type_);
      with_element(type_, [&](auto tag) {
        using T = decltype(tag);
        T v;
        if constexpr (std::is_integral_v<T>) {
          v = static_cast<T>(value(i));
        } else if constexpr (std::is_same_v<T, bool_t>) {
          v = {static_cast<uint8_t>(value(i))};
        } else {
          v = from_float<T>(static_cast<float>(value(i)));
        }
        std::memcpy(to, &v, sizeof v);
      });
    }
    upload();
    return *this;
  }
  Tensor& normal(std::mt19937_64& random, double scale = 1, double mean = 0) {
    std::normal_distribution<double> d(mean, scale);
    return fill([&](int64_t) { return d(random); });
  }

  // What the host knows: the last fill or read.
  double operator[](int64_t i) const {
    const unsigned char* from = bytes_.data() + offset(i) * size_of(type_);
    double result = 0;
    with_element(type_, [&](auto tag) {
      using T = decltype(tag);
      T v;
      std::memcpy(&v, from, sizeof v);
      if constexpr (std::is_integral_v<T>) {
        result = static_cast<double>(v);
      } else if constexpr (std::is_same_v<T, bool_t>) {
        result = v.byte;
      } else {
        result = to_float(v);
      }
    });
    return result;
  }
  // Copies the tensor to the host; bytes between the elements must not have changed.
  Tensor& read() {
    const std::vector<unsigned char> before = bytes_;
    EXPECT_EQ(cul_copy(machine_.stream, bytes_.data(), memory_, bytes_.size()), CUL_OK) << cul_last_error();
    EXPECT_EQ(cul_stream_synchronize(machine_.stream), CUL_OK) << cul_last_error();
    std::vector<bool> element(bytes_.size());
    for (int64_t i = 0; i < elements(); ++i)
      for (size_t b = 0; b < size_of(type_); ++b) element[offset(i) * size_of(type_) + b] = true;
    for (size_t b = 0; b < bytes_.size(); ++b)
      if (!element[b] && bytes_[b] != before[b]) {
        ADD_FAILURE() << "byte " << b << ", which belongs to no element, was written";
        break;
      }
    return *this;
  }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

 private:
  size_t offset(int64_t i) const {
    int64_t at = first_;
    for (size_t d = shape_.size(); d-- > 0; i /= shape_[d]) at += i % shape_[d] * strides_[d];
    return static_cast<size_t>(at);
  }
  void upload() {
    EXPECT_EQ(cul_copy(machine_.stream, memory_, bytes_.data(), bytes_.size()), CUL_OK) << cul_last_error();
    EXPECT_EQ(cul_stream_synchronize(machine_.stream), CUL_OK) << cul_last_error();
  }

  Machine& machine_;
  DType type_;
  std::vector<int64_t> shape_, strides_;
  int64_t first_;
  std::vector<unsigned char> bytes_;
  void* memory_ = nullptr;
  cul_tensor descriptor_{};
};

template <class Args>
Args args_of() {
  Args args{};
  args.call.struct_size = sizeof(Args);
  return args;
}

// Runs an op twice and expects the same bytes in `out`, which it leaves read.
template <class Args>
void run(Machine& m, cul_status (*op)(cul_stream*, const Args*), const Args& args, std::initializer_list<Tensor*> out,
         bool in_place = false) {
  ASSERT_EQ(op(m.stream, &args), CUL_OK) << cul_last_error();
  for (Tensor* t : out) t->read();
  if (in_place) return;
  std::vector<std::vector<unsigned char>> first;
  for (Tensor* t : out) first.push_back(t->bytes());
  ASSERT_EQ(op(m.stream, &args), CUL_OK) << cul_last_error();
  size_t i = 0;
  for (Tensor* t : out) EXPECT_EQ(t->read().bytes(), first[i++]) << "two runs differ";
}

double bound_of(DType type) { return type == DType::f32 ? 1e-5 : type == DType::f16 ? 2e-3 : 5e-3; }

void expect_close(const Tensor& out, const std::vector<double>& reference) {
  const double underflow = out.type() == DType::f16 ? 0x1p-24 : 0x1p-126;
  double error = 0, size = 0;
  for (int64_t i = 0; i < out.elements(); ++i) {
    const double want = reference[static_cast<size_t>(i)];
    if (std::isnan(want) || std::isinf(want)) {
      EXPECT_TRUE(std::isnan(want) ? std::isnan(out[i]) : out[i] == want) << "element " << i << " is " << out[i];
      continue;
    }
    error += std::pow(std::max(0.0, std::abs(out[i] - want) - underflow), 2);
    size += want * want;
  }
  EXPECT_LE(std::sqrt(error), bound_of(out.type()) * std::sqrt(size));
}

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
      for (const int64_t target : {HWY_AVX3, HWY_AVX2, HWY_NEON, HWY_EMU128, HWY_SCALAR})
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
      if (mode == 2) expect_close(h.read(), sum);
      if (mode == 3) expect_close(r.read(), sum);
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
      SCOPED_TRACE(testing::Message() << s.tokens << " x " << s.heads << " x " << s.channels << " R " << s.turned << (interleaved ? " interleaved" : ""));
      const int64_t table = 40, half = s.turned / 2;
      Tensor x = tensor({s.tokens, s.heads, s.channels}), y = tensor({s.tokens, s.heads, s.channels});
      Tensor cos(m, DType::f32, {table, half}, {half + 1, 1}), sin(m, DType::f32, {table, half}), positions(m, DType::i64, {s.tokens});
      x.normal(random);
      const auto angle = [&](int64_t i) { return half ? static_cast<double>(i / half) * std::pow(1e4, -static_cast<double>(i % half) / static_cast<double>(half)) : 0; };
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
  for (int32_t backend : {CUL_BACKEND_CPU, CUL_BACKEND_SIMT}) {
    if (backend == CUL_BACKEND_SIMT && !CULEBRA_HAS_SIMT) continue;
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

// ---- sampling

TEST(GlueSample, PhiloxKnownAnswers) {  // published with the Random123 library
  const auto expect = [](uint64_t low, uint64_t high, uint64_t key, std::array<uint32_t, 4> want) {
    const Philox4x32 got = philox4x32_10(low, high, key);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(got.v[i], want[static_cast<size_t>(i)]);
  };
  expect(0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  expect(~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect(0x85a308d3243f6a88, 0x0370734413198a2e, 0x299f31d0a4093822, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(GlueSample, WeightsAreExponentials) {
  const double largest = 0x1p62;
  EXPECT_EQ(glue::sample_weight(0, 0), uint64_t{1} << 62);
  uint64_t before = ~0ull;
  for (uint64_t key = 0; key < 1ull << 32; key += 65521) {
    const uint64_t weight = glue::sample_weight(static_cast<uint32_t>(key), 0);
    EXPECT_LE(weight, before);
    before = weight;
    const double want = largest * std::exp(-static_cast<double>(key) * 0x1p-26);
    EXPECT_NEAR(static_cast<double>(weight), want, want * 5e-9 + 1);
  }
  EXPECT_EQ(glue::sample_weight(glue::kLastKey, 0), 0u);
  EXPECT_EQ(glue::sample_shift(1), 0);
  EXPECT_EQ(glue::sample_shift(262144), 18);
  EXPECT_EQ(glue::sample_shift(262145), 19);
}

struct SampleRow {
  double temperature;
  int top_k;
  double top_p, min_p;
  int64_t seed, position;
};

// The contract in double, by sorting.
int64_t sample_reference(const std::vector<double>& logits, const SampleRow& s, bool* near_a_boundary) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  const double largest = logits[static_cast<size_t>(order[0])];
  std::vector<double> p;
  double total = 0;
  for (int64_t id : order) total += p.emplace_back(std::exp((logits[static_cast<size_t>(id)] - largest) / static_cast<float>(s.temperature)));
  for (double& v : p) v /= total;
  size_t kept = p.size();
  *near_a_boundary = false;
  const auto near = [&](double a, double b) { *near_a_boundary |= std::abs(a - b) < 1e-6 * std::max(1e-3, std::abs(b)); };
  if (s.top_k > 0) kept = std::min(kept, static_cast<size_t>(s.top_k));
  if (static_cast<float>(s.top_p) < 1) {
    double sum = 0;
    for (size_t i = 0; i < kept; ++i) {
      sum += p[i];
      near(sum, static_cast<float>(s.top_p));
      if (sum >= static_cast<float>(s.top_p)) kept = i + 1;
    }
  }
  double mass = 0;
  size_t n = 0;
  for (; n < kept && p[n] >= static_cast<float>(s.min_p) * p[0]; ++n) {
    near(p[n], static_cast<float>(s.min_p) * p[0]);
    mass += p[n];
  }
  if (n < kept) near(p[n], static_cast<float>(s.min_p) * p[0]);
  const Philox4x32 random = philox4x32_10(static_cast<uint64_t>(s.position), 0, static_cast<uint64_t>(s.seed));
  const double target = random.v[0] * 0x1p-32 * mass;
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    sum += p[i];
    near(target, sum);
    if (sum > target) return order[i];
  }
  return order[n - 1];
}

struct SampleResult {
  std::vector<double> ids, logprobs;
};

SampleResult sample_on(int32_t backend, DType type, const std::vector<double>& logits, int64_t columns, const std::vector<SampleRow>& rows,
                       bool padded = false) {
  Machine m(backend);
  const auto n = static_cast<int64_t>(rows.size());
  Tensor x(m, type, {n, columns}, padded ? std::vector<int64_t>{columns + 3, 1} : std::vector<int64_t>{});
  Tensor temperature(m, DType::f32, {n}), top_k(m, DType::i32, {n}), top_p(m, DType::f32, {n}), min_p(m, DType::f32, {n}), seed(m, DType::i64, {n}),
      position(m, DType::i64, {n}), ids(m, DType::i32, {n}), logprob(m, DType::f32, {n});
  x.fill([&](int64_t i) { return logits[static_cast<size_t>(i)]; });
  const auto row = [&](int64_t i) -> const SampleRow& { return rows[static_cast<size_t>(i)]; };
  temperature.fill([&](int64_t i) { return row(i).temperature; });
  top_k.fill([&](int64_t i) { return row(i).top_k; });
  top_p.fill([&](int64_t i) { return row(i).top_p; });
  min_p.fill([&](int64_t i) { return row(i).min_p; });
  seed.fill([&](int64_t i) { return static_cast<double>(row(i).seed); });
  position.fill([&](int64_t i) { return static_cast<double>(row(i).position); });
  auto args = args_of<cul_sample_args>();
  args.logits = x, args.temperature = temperature, args.top_k = top_k, args.top_p = top_p, args.min_p = min_p, args.seed = seed;
  args.position = position, args.ids = ids, args.logprob = logprob;
  run(m, cul_sample, args, {&ids, &logprob});
  SampleResult result;
  for (int64_t i = 0; i < n; ++i) result.ids.push_back(ids[i]), result.logprobs.push_back(logprob[i]);
  return result;
}

TEST(GlueSample, AgreesWithTheContractAndBetweenBackends) {
  const uint64_t seed = 77;
  std::mt19937_64 random(seed);
  int compared = 0;
  for (DType type : {DType::f32, DType::f16, DType::bf16})
    for (int64_t columns : {1, 2, 50, 1000, 4099}) {
      const int64_t n = columns > 1000 ? 8 : 24;
      std::normal_distribution<double> d(0, 4);
      std::vector<double> logits;
      for (int64_t i = 0; i < n * columns; ++i) {  // as stored
        const auto v = static_cast<float>(d(random));
        logits.push_back(type == DType::f32 ? v : type == DType::f16 ? to_float(from_float<half_t>(v)) : to_float(from_float<bfloat16_t>(v)));
      }
      std::vector<SampleRow> rows;
      for (int64_t i = 0; i < n; ++i)
        rows.push_back({std::vector<double>{1, 0.7, 1.5, 0.05, 100}[random() % 5], std::vector<int>{0, 0, 1, 5, 40, 100000}[random() % 6],
                        std::vector<double>{1, 1, 0.9, 0.5, 0.01}[random() % 5], std::vector<double>{0, 0, 0.05, 0.5}[random() % 4],
                        static_cast<int64_t>(random() >> 12), static_cast<int64_t>(random() % 5000)});
      const SampleResult cpu = sample_on(CUL_BACKEND_CPU, type, logits, columns, rows);
      for (int64_t i = 0; i < n; ++i) {
        const std::vector<double> row(logits.begin() + i * columns, logits.begin() + (i + 1) * columns);
        const SampleRow& s = rows[static_cast<size_t>(i)];
        SCOPED_TRACE(testing::Message() << name_of(type) << " V " << columns << " row " << i << " seed " << seed << ": T " << s.temperature << " k "
                                        << s.top_k << " p " << s.top_p << " min " << s.min_p);
        bool near_a_boundary;
        const int64_t want = sample_reference(row, s, &near_a_boundary);
        const auto id = static_cast<int64_t>(cpu.ids[static_cast<size_t>(i)]);
        compared += !near_a_boundary;
        EXPECT_TRUE(near_a_boundary || id == want) << id << " instead of " << want;
        ASSERT_TRUE(id >= 0 && id < columns);
        double largest = *std::max_element(row.begin(), row.end()), sum = 0;
        for (double l : row) sum += std::exp(l - largest);
        EXPECT_NEAR(cpu.logprobs[static_cast<size_t>(i)], row[static_cast<size_t>(id)] - largest - std::log(sum), 2e-5);
      }
#if CULEBRA_HAS_SIMT
      const SampleResult simt = sample_on(CUL_BACKEND_SIMT, type, logits, columns, rows, true);
      EXPECT_EQ(simt.ids, cpu.ids);
      for (size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(simt.logprobs[i], cpu.logprobs[i], 2e-5);
#endif
    }
  EXPECT_GT(compared, 200) << "too many rows lie near a boundary for this test to mean anything";
}

TEST(GlueSample, TiesCutsAndOddRows) {
  const double nan = std::nan(""), inf = kInfinity;
  const std::vector<double> equal = {1, 1, 1, 1}, odd = {nan, 2, -inf, 1}, infinite = {1, inf, inf, nan}, masked = {-inf, -inf, -inf, -inf},
                            nothing = {nan, nan, nan, nan};
  std::vector<double> logits;
  std::vector<SampleRow> rows;
  const auto add = [&](const std::vector<double>& row, SampleRow s) {
    logits.insert(logits.end(), row.begin(), row.end());
    rows.push_back(s);
  };
  for (int64_t position = 0; position < 8; ++position) {
    add(equal, {1, 2, 1, 0, 5, position});       // ids 0, 1
    add(equal, {1, 0, 0.5, 0, 5, position});     // 0.5 is reached by exactly two
    add(odd, {1, 0, 1, 0, 5, position});         // ids 1, 3
    add(odd, {1, 0, 1, 0.9, 5, position});       // id 1
    add(infinite, {1, 0, 1, 0, 5, position});    // ids 1, 2
    add(masked, {1, 0, 1, 0, 5, position});      // any
    add(nothing, {1, 0, 1, 0, 5, position});     // id 0
    add(odd, {0, 0, 1, 0, 5, position});         // argmax: NaN, id 0
    add(odd, {1, 0, 0, 2, 5, position});         // cuts that would leave nothing leave the largest
  }
  for (int32_t backend : {CUL_BACKEND_CPU, CUL_BACKEND_SIMT}) {
    if (backend == CUL_BACKEND_SIMT && !CULEBRA_HAS_SIMT) continue;
    const SampleResult got = sample_on(backend, DType::f32, logits, 4, rows);
    std::vector<std::vector<bool>> seen(9, std::vector<bool>(4));
    for (size_t i = 0; i < rows.size(); ++i) seen[i % 9][static_cast<size_t>(got.ids[i])] = true;
    EXPECT_EQ(seen[0], (std::vector<bool>{true, true, false, false}));
    EXPECT_EQ(seen[1], (std::vector<bool>{true, true, false, false}));
    EXPECT_EQ(seen[2], (std::vector<bool>{false, true, false, true}));
    EXPECT_EQ(seen[3], (std::vector<bool>{false, true, false, false}));
    EXPECT_EQ(seen[4], (std::vector<bool>{false, true, true, false}));
    EXPECT_EQ(seen[6], (std::vector<bool>{true, false, false, false}));
    EXPECT_EQ(seen[7], (std::vector<bool>{true, false, false, false}));
    EXPECT_EQ(seen[8], (std::vector<bool>{false, true, false, false}));
  }
}

TEST(GlueSample, FrequenciesFollowTheProbabilities) {
  const std::vector<double> row = {0, 1, 2, -1, 0.5};
  const int64_t draws = 20000;
  std::vector<double> logits;
  std::vector<SampleRow> rows;
  for (int64_t i = 0; i < draws; ++i) logits.insert(logits.end(), row.begin(), row.end()), rows.push_back({1, 0, 1, 0, 99, i});
  const SampleResult got = sample_on(CUL_BACKEND_CPU, DType::f32, logits, 5, rows);
  std::vector<double> count(5);
  for (double id : got.ids) ++count[static_cast<size_t>(id)];
  double sum = 0, chi_squared = 0;
  for (double l : row) sum += std::exp(l);
  for (size_t i = 0; i < 5; ++i) chi_squared += std::pow(count[i] - draws * std::exp(row[i]) / sum, 2) / (draws * std::exp(row[i]) / sum);
  EXPECT_LT(chi_squared, 18.5);  // 4 degrees of freedom, 0.1%
}

// ---- plans and refusals

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
  for (int32_t backend : {CUL_BACKEND_CPU, CUL_BACKEND_SIMT}) {
    if (backend == CUL_BACKEND_SIMT && !CULEBRA_HAS_SIMT) continue;
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

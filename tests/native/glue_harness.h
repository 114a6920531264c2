// What the tests of the glue family share: a device with a stream, tensors among guard bytes, runs and comparisons.
#pragma once
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

#include "culebra/glue.h"
#include "ops/glue/convert.h"

namespace culebra::glue_testing {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline cul_dtype encoding(DType t) {
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

// Runs an op once with a workspace of the size that it asks for, poisoned, and waits.
template <class Args>
cul_status call(Machine& m, cul_status (*op)(cul_stream*, const Args*), Args args, uint32_t flags = 0) {
  args.call = {sizeof(Args), flags, nullptr, 0};
  cul_status status = op(m.stream, &args);
  void* workspace = nullptr;
  if (status == CUL_WORKSPACE) {
    const uint64_t bytes = cul_last_workspace_bytes();
    EXPECT_EQ(cul_memory_alloc(m.device, bytes, &workspace), CUL_OK);
    EXPECT_EQ(cul_fill(m.stream, workspace, 0xff, bytes), CUL_OK);
    args.call = {sizeof(Args), flags, workspace, bytes};
    status = op(m.stream, &args);
  }
  if (status == CUL_OK) status = cul_stream_synchronize(m.stream);
  if (workspace) {
    EXPECT_EQ(cul_memory_free(m.device, workspace), CUL_OK);
  }
  return status;
}

// All elements, as they are on the device now.
inline std::vector<double> values_of(Tensor& t) {
  t.read();
  std::vector<double> all;
  for (int64_t i = 0; i < t.elements(); ++i) all.push_back(t[i]);
  return all;
}

inline double bound_of(DType type) { return type == DType::f32 ? 1e-5 : type == DType::f16 ? 2e-3 : 5e-3; }

inline void expect_close(const Tensor& out, const std::vector<double>& reference) {
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

// The backends of this build.
inline std::vector<int32_t> backends() {
  std::vector<int32_t> list = {CUL_BACKEND_CPU};
#if CULEBRA_HAS_SIMT
  list.push_back(CUL_BACKEND_SIMT);
#endif
  return list;
}

}  // namespace culebra::glue_testing

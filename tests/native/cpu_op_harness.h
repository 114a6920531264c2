// What the tests of cpu operators share: strided arrays with guard bytes, and calls through the C ABI.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "abi/dtype.h"
#include "culebra/culebra.h"
#include "device/numeric.h"
#include "hwy/aligned_allocator.h"
#include "simd_targets.h"

namespace culebra::testing {

// A tensor on the cpu. Rows are `gap` elements apart beyond their width; bytes outside the view are 0x5a and must stay
// so. Elements begin as 0xff bytes, which is NaN in every float type.
class Array {
 public:
  Array(DType type, std::vector<int64_t> shape, int64_t gap = 0) : type_(type), shape_(std::move(shape)) {
    strides_.resize(shape_.size());
    int64_t next = 1;
    for (size_t i = shape_.size(); i-- > 0;) {
      strides_[i] = next;
      next *= std::max<int64_t>(shape_[i], 1);
      if (i + 1 == shape_.size() && shape_.size() > 1) next += gap;
    }
    bytes_ = static_cast<size_t>(next) * size_of(type) + 64;
    data_ = hwy::AllocateAligned<uint8_t>(bytes_);
    std::memset(data_.get(), 0x5a, bytes_);
    for (int64_t i = 0; i < size(); ++i) std::memset(at(i), 0xff, size_of(type));
    const uint8_t code = type == DType::bf16                        ? CUL_BFLOAT
                         : type == DType::f8e4m3                    ? CUL_FLOAT8_E4M3FN
                         : type == DType::u8                        ? CUL_UINT
                         : type == DType::i32 || type == DType::i64 ? CUL_INT
                                                                    : CUL_FLOAT;
    tensor_ = {data_.get(),
               {CUL_DEVICE_CPU, 0},
               static_cast<int32_t>(shape_.size()),
               {code, static_cast<uint8_t>(8 * size_of(type)), 1},
               shape_.data(),
               strides_.data(),
               0};
  }
  Array(DType type, std::vector<int64_t> shape, const std::function<double(int64_t)>& value, int64_t gap = 0)
      : Array(type, std::move(shape), gap) {
    for (int64_t i = 0; i < size(); ++i) set(i, value(i));
  }

  int64_t size() const {
    int64_t n = 1;
    for (int64_t e : shape_) n *= e;
    return n;
  }
  int64_t dim(size_t i) const { return shape_[i]; }
  DType type() const { return type_; }
  // Elements are numbered in row-major order of the shape, whatever the strides.
  double operator[](int64_t i) const {
    const void* p = at(i);
    switch (type_) {
      case DType::f32:
        return *static_cast<const float*>(p);
      case DType::f16:
        return to_float(*static_cast<const half_t*>(p));
      case DType::bf16:
        return to_float(*static_cast<const bfloat16_t*>(p));
      case DType::f8e4m3:
        return to_float(*static_cast<const float8_e4m3_t*>(p));
      case DType::i32:
        return *static_cast<const int32_t*>(p);
      case DType::i64:
        return static_cast<double>(*static_cast<const int64_t*>(p));
      default:
        return *static_cast<const uint8_t*>(p);
    }
  }
  // All elements: for references, which look at each many times.
  std::vector<double> numbers() const {
    std::vector<double> all;
    for (int64_t i = 0; i < size(); ++i) all.push_back((*this)[i]);
    return all;
  }
  void set(int64_t i, double value) {
    void* p = at(i);
    switch (type_) {
      case DType::f32:
        *static_cast<float*>(p) = static_cast<float>(value);
        break;
      case DType::f16:
        *static_cast<half_t*>(p) = from_float<half_t>(static_cast<float>(value));
        break;
      case DType::bf16:
        *static_cast<bfloat16_t*>(p) = from_float<bfloat16_t>(static_cast<float>(value));
        break;
      case DType::f8e4m3:
        *static_cast<float8_e4m3_t*>(p) = from_float<float8_e4m3_t>(static_cast<float>(value));
        break;
      case DType::i32:
        *static_cast<int32_t*>(p) = static_cast<int32_t>(value);
        break;
      case DType::i64:
        *static_cast<int64_t*>(p) = static_cast<int64_t>(value);
        break;
      default:
        *static_cast<uint8_t*>(p) = static_cast<uint8_t>(value);
        break;
    }
  }
  void* at(int64_t i) const {
    int64_t offset = 0;
    for (size_t d = shape_.size(); d-- > 0;) {
      offset += i % shape_[d] * strides_[d];
      i /= shape_[d];
    }
    return data_.get() + offset * static_cast<int64_t>(size_of(type_));
  }
  // Bits of elements [begin, end), end < 0: all.
  std::vector<uint8_t> bits(int64_t begin = 0, int64_t end = -1) const {
    std::vector<uint8_t> out;
    for (int64_t i = begin; i < (end < 0 ? size() : end); ++i) {
      const auto* p = static_cast<const uint8_t*>(at(i));
      out.insert(out.end(), p, p + size_of(type_));
    }
    return out;
  }
  void copy_from(const Array& other) {
    for (int64_t i = 0; i < size(); ++i) std::memcpy(at(i), other.at(i), size_of(type_));
  }
  bool guards_untouched() const {
    std::vector<bool> inside(bytes_);
    for (int64_t i = 0; i < size(); ++i) {
      const auto first = static_cast<size_t>(static_cast<uint8_t*>(at(i)) - data_.get());
      std::fill_n(inside.begin() + static_cast<std::ptrdiff_t>(first), size_of(type_), true);
    }
    for (size_t i = 0; i < bytes_; ++i)
      if (!inside[i] && data_[i] != 0x5a) return false;
    return true;
  }
  operator const cul_tensor*() const { return &tensor_; }
  // The same memory, read and written as if the first dimension did not advance.
  cul_tensor broadcast() {
    broadcast_strides_ = strides_;
    broadcast_strides_[0] = 0;
    cul_tensor t = tensor_;
    t.strides = broadcast_strides_.data();
    return t;
  }

 private:
  DType type_;
  std::vector<int64_t> shape_, strides_, broadcast_strides_;
  size_t bytes_ = 0;
  hwy::AlignedFreeUniquePtr<uint8_t[]> data_;
  cul_tensor tensor_{};
};

// A cpu device with one stream.
class Cpu {
 public:
  explicit Cpu(int threads = 3) {
    cul_device_options options{};
    options.struct_size = sizeof options;
    options.threads = threads;
    EXPECT_EQ(cul_device_open(CUL_BACKEND_CPU, 0, &options, &device_), CUL_OK) << cul_last_error();
    EXPECT_EQ(cul_stream_create(device_, &stream_), CUL_OK) << cul_last_error();
  }
  ~Cpu() {
    cul_stream_destroy(stream_);
    EXPECT_EQ(cul_device_close(device_), CUL_OK) << cul_last_error();
  }

  // Calls and waits; a workspace that the op asks for is poisoned.
  template <class Args>
  cul_status operator()(cul_status (*op)(cul_stream*, const Args*), Args args) {
    args.call.struct_size = sizeof args;
    cul_status status = op(stream_, &args);
    hwy::AlignedFreeUniquePtr<uint8_t[]> workspace;
    if (status == CUL_WORKSPACE) {
      args.call.workspace_bytes = cul_last_workspace_bytes();
      workspace = hwy::AllocateAligned<uint8_t>(args.call.workspace_bytes + 256);
      std::memset(workspace.get(), 0xff, args.call.workspace_bytes + 256);
      auto address = reinterpret_cast<uintptr_t>(workspace.get());
      args.call.workspace = reinterpret_cast<void*>((address + 255) / 256 * 256);
      status = op(stream_, &args);
    }
    return status != CUL_OK ? status : cul_stream_synchronize(stream_);
  }

 private:
  cul_device* device_ = nullptr;
  cul_stream* stream_ = nullptr;
};

// rms(out - ref) / rms(ref); NaN where any output is.
inline double rms_ratio(const Array& out, const std::vector<double>& ref) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < out.size(); ++i) {
    const double r = ref[static_cast<size_t>(i)];
    difference += (out[i] - r) * (out[i] - r);
    norm += r * r;
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

// The contract's tolerance.
inline double tolerance(DType type) { return type == DType::f32 ? 1e-5 : type == DType::f16 ? 2e-3 : 5e-3; }

// Numbers from a printed seed.
class Random {
 public:
  explicit Random(uint64_t seed) : rng_(seed) { std::printf("seed %llu\n", static_cast<unsigned long long>(seed)); }
  std::function<double(int64_t)> normal(double scale = 1) {
    return [this, scale](int64_t) { return scale * normal_(rng_); };
  }
  std::function<double(int64_t)> uniform(double low, double high) {
    return [this, low, high](int64_t) { return low + (high - low) * uniform_(rng_); };
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(rng_() % static_cast<uint64_t>(n)); }

 private:
  std::mt19937_64 rng_;
  std::normal_distribution<double> normal_;
  std::uniform_real_distribution<double> uniform_{0, 1};
};

inline std::function<double(int64_t)> values(std::vector<double> v) {
  return [v = std::move(v)](int64_t i) { return v[static_cast<size_t>(i)]; };
}

}  // namespace culebra::testing

// Tensors on a device for the tests of the GEMM family: guarded rows, upload, download, calls with their workspace.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "abi/dtype.h"
#include "culebra/gemm.h"
#include "device/numeric.h"

namespace culebra::testing {

inline constexpr cul_dtype kF32{CUL_FLOAT, 32, 1}, kF16{CUL_FLOAT, 16, 1}, kBf16{CUL_BFLOAT, 16, 1}, kI32{CUL_INT, 32, 1},
    kI64{CUL_INT, 64, 1}, kU8{CUL_UINT, 8, 1}, kI8{CUL_INT, 8, 1}, kF8{CUL_FLOAT8_E4M3FN, 8, 1};

inline void set_element(cul_dtype type, void* data, int64_t i, double value) {
  switch (dtype_of(type)) {
    case DType::f32: static_cast<float*>(data)[i] = static_cast<float>(value); break;
    case DType::f16: static_cast<half_t*>(data)[i] = from_float<half_t>(static_cast<float>(value)); break;
    case DType::bf16: static_cast<bfloat16_t*>(data)[i] = from_float<bfloat16_t>(static_cast<float>(value)); break;
    case DType::f8e4m3: static_cast<float8_e4m3_t*>(data)[i] = from_float<float8_e4m3_t>(static_cast<float>(value)); break;
    case DType::i32: static_cast<int32_t*>(data)[i] = static_cast<int32_t>(static_cast<int64_t>(value)); break;
    case DType::i64: static_cast<int64_t*>(data)[i] = static_cast<int64_t>(value); break;
    default: static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(static_cast<int64_t>(value)); break;
  }
}
inline double get_element(cul_dtype type, const void* data, int64_t i) {
  switch (dtype_of(type)) {
    case DType::f32: return static_cast<const float*>(data)[i];
    case DType::f16: return to_float(static_cast<const half_t*>(data)[i]);
    case DType::bf16: return to_float(static_cast<const bfloat16_t*>(data)[i]);
    case DType::f8e4m3: return to_float(static_cast<const float8_e4m3_t*>(data)[i]);
    case DType::i32: return static_cast<const int32_t*>(data)[i];
    case DType::i64: return static_cast<double>(static_cast<const int64_t*>(data)[i]);
    case DType::i8: return static_cast<const int8_t*>(data)[i];
    default: return static_cast<const uint8_t*>(data)[i];
  }
}

// A backend's device: the first, where only the backend is named.
struct DeviceChoice {
  DeviceChoice(int32_t backend, int32_t index = 0) : backend(backend), index(index) {}
  int32_t backend, index;
};

// A device, its stream, and what the calls of one test allocate. host() gives tensors of the host for the same descriptors.
class Context {
 public:
  explicit Context(DeviceChoice choice) {
    cul_device_options options{};
    options.struct_size = sizeof options;
    options.poison = 1;
    EXPECT_EQ(cul_device_open(choice.backend, choice.index, &options, &device), CUL_OK) << cul_last_error();
    EXPECT_EQ(cul_stream_create(device, &stream), CUL_OK);
    cul_device_info info{};
    info.struct_size = sizeof info;
    EXPECT_EQ(cul_device_get_info(device, &info), CUL_OK);
    id = info.id;
  }
  ~Context() {
    cul_stream_destroy(stream);
    EXPECT_EQ(cul_device_close(device), CUL_OK) << cul_last_error();
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Checks, runs with a workspace of exactly the size asked for, and waits.
  template <class Args>
  cul_status run(cul_status (*op)(cul_stream*, const Args*), Args& args, uint32_t flags = 0) {
    args.call = {sizeof(Args), flags | CUL_OP_PLAN_ONLY, nullptr, 0};
    if (const cul_status status = op(stream, &args)) return status;
    plan = cul_last_plan();
    const uint64_t bytes = cul_last_workspace_bytes();
    void* workspace = nullptr;
    if (bytes && cul_memory_alloc(device, bytes, &workspace) != CUL_OK) return CUL_OUT_OF_MEMORY;
    args.call = {sizeof(Args), flags, workspace, bytes};
    cul_status status = op(stream, &args);
    if (status == CUL_OK) status = cul_stream_synchronize(stream);
    if (workspace && cul_memory_free(device, workspace) != CUL_OK) return CUL_INTERNAL;
    return status;
  }

  cul_device* device = nullptr;
  cul_stream* stream = nullptr;
  cul_device_id id{};
  std::string plan;
};

// A matrix (or, with one row, a vector) on a device, `pad` elements between rows, and its host image.
class DeviceTensor {
 public:
  DeviceTensor(Context& context, cul_dtype type, std::vector<int64_t> extents, int64_t pad = 0)
      : context_(context), shape_(std::move(extents)) {
    const int64_t columns = shape_.back(), rows = shape_.size() > 1 ? shape_[0] : 1;
    stride_ = columns + pad;
    strides_.assign(shape_.size(), 1);
    if (shape_.size() > 1) strides_[0] = stride_;
    element_ = size_of(dtype_of(type));
    image.assign(static_cast<size_t>(rows * stride_ - (rows > 0 ? pad : 0)) * element_, std::byte{0x5a});
    EXPECT_EQ(cul_memory_alloc(context.device, image.size(), &data_), CUL_OK);
    tensor = {data_, context.id, static_cast<int32_t>(shape_.size()), type, shape_.data(), strides_.data(), 0};
    upload();
  }
  ~DeviceTensor() { EXPECT_EQ(cul_memory_free(context_.device, data_), CUL_OK); }
  DeviceTensor(const DeviceTensor&) = delete;
  DeviceTensor& operator=(const DeviceTensor&) = delete;

  int64_t rows() const { return shape_.size() > 1 ? shape_[0] : 1; }
  int64_t columns() const { return shape_.back(); }
  double get(int64_t row, int64_t column) const { return get_element(tensor.dtype, image.data(), row * stride_ + column); }
  void set(int64_t row, int64_t column, double value) { set_element(tensor.dtype, image.data(), row * stride_ + column, value); }
  template <class F>
  void fill(F f) {
    for (int64_t r = 0; r < rows(); ++r)
      for (int64_t c = 0; c < columns(); ++c) set(r, c, f(r, c));
    upload();
  }
  void upload() {
    EXPECT_EQ(cul_copy(context_.stream, data_, image.data(), image.size()), CUL_OK);
    EXPECT_EQ(cul_stream_synchronize(context_.stream), CUL_OK) << cul_last_error();
  }
  void download() {
    EXPECT_EQ(cul_copy(context_.stream, image.data(), data_, image.size()), CUL_OK);
    EXPECT_EQ(cul_stream_synchronize(context_.stream), CUL_OK) << cul_last_error();
  }
  // The same tensor as host memory.
  cul_tensor host() {
    cul_tensor t = tensor;
    t.data = image.data();
    t.device = {CUL_DEVICE_CPU, 0};
    return t;
  }
  bool guards_untouched() const {
    for (int64_t r = 0; r + 1 < rows(); ++r)
      for (int64_t i = (r * stride_ + columns()) * static_cast<int64_t>(element_); i < (r + 1) * stride_ * static_cast<int64_t>(element_); ++i)
        if (image[static_cast<size_t>(i)] != std::byte{0x5a}) return false;
    return true;
  }

  cul_tensor tensor{};
  std::vector<std::byte> image;

 private:
  Context& context_;
  std::vector<int64_t> shape_, strides_;
  int64_t stride_;
  size_t element_;
  void* data_ = nullptr;
};

// Calls f with all rows of the matrix in one place, and with rows in descending order: strides that every operator takes. The rows are made
// equal first, so that the elements are the same in both.
template <class F>
void with_unusual_rows(DeviceTensor& matrix, F f) {
  matrix.fill([&](auto, int64_t column) { return matrix.get(0, column); });
  const cul_tensor plain = matrix.tensor;
  for (const int64_t stride : {int64_t{0}, -plain.strides[0]}) {
    SCOPED_TRACE("row stride " + std::to_string(stride));
    int64_t strides[] = {stride, 1};
    matrix.tensor.strides = strides;
    matrix.tensor.byte_offset = static_cast<uint64_t>(stride < 0 ? (matrix.rows() - 1) * plain.strides[0] * plain.dtype.bits / 8 : 0);
    f();
  }
  matrix.tensor = plain;
}

inline std::vector<int32_t> backends_here() {
  std::vector<int32_t> list;
  for (int32_t b = 0; b < CUL_BACKEND_COUNT; ++b) {
    int32_t count = 0;
    const char* reason = nullptr;
    if (cul_backend_devices(b, &count, &reason) == CUL_OK && count > 0) list.push_back(b);
  }
  return list;
}
inline std::string backend_test_name(const ::testing::TestParamInfo<int32_t>& info) { return cul_backend_name(info.param); }

// The first device of each backend, and simt's second, which runs the kernels for Hopper.
inline std::vector<DeviceChoice> devices_here() {
  std::vector<DeviceChoice> list;
  for (const int32_t backend : backends_here()) {
    list.emplace_back(backend);
    if (backend == CUL_BACKEND_SIMT) list.emplace_back(backend, 1);
  }
  return list;
}
inline std::string device_test_name(const ::testing::TestParamInfo<DeviceChoice>& info) {
  return cul_backend_name(info.param.backend) + (info.param.index ? std::to_string(info.param.index) : std::string());
}

}  // namespace culebra::testing

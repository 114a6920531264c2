// The checks every operator shares.
#include "abi/call.h"

#include <gtest/gtest.h>

#include "backends/backend.h"

namespace culebra {
namespace {

struct Tensor {
  std::vector<int64_t> shape, strides;
  cul_tensor t{};
  Tensor(void* data, std::vector<int64_t> shape_, std::vector<int64_t> strides_ = {}, uint64_t offset = 0)
      : shape(std::move(shape_)), strides(std::move(strides_)) {
    t = {data, {CUL_DEVICE_CPU, 0}, static_cast<int32_t>(shape.size()), {CUL_FLOAT, 32, 1}, shape.data(),
         strides.empty() ? nullptr : strides.data(), offset};
  }
};

class CallTest : public ::testing::Test {
 protected:
  CallTest() { caps.id = {CUL_DEVICE_CPU, 0}; }
  template <class F>
  cul_status status(F&& f) {
    try {
      f();
      return CUL_OK;
    } catch (const Refusal& e) {
      text = e.what();
      return e.status();
    }
  }
  alignas(64) float data[256]{};
  DeviceCaps caps;
  cul_op_call args{};
  Call call{"op", caps, args};
  std::string text;
};

TEST_F(CallTest, refusesWhatNoOpTakes) {
  EXPECT_EQ(status([&] { call.required(nullptr, "x"); }), CUL_NULL_POINTER);
  EXPECT_EQ(text, "op: x is required");
  Tensor ok(data, {4, 8});
  EXPECT_EQ(status([&] { call.required(&ok.t, "x"); }), CUL_OK);
  Tensor nowhere(nullptr, {4, 8});
  EXPECT_EQ(status([&] { call.required(&nowhere.t, "x"); }), CUL_NULL_POINTER);
  Tensor empty(nullptr, {0, 8});
  EXPECT_EQ(status([&] { call.required(&empty.t, "x"); }), CUL_OK);
  Tensor negative(data, {4, -8});
  EXPECT_EQ(status([&] { call.required(&negative.t, "x"); }), CUL_SHAPE);
  Tensor huge(data, {int64_t{1} << 40, int64_t{1} << 40});
  EXPECT_EQ(status([&] { call.required(&huge.t, "x"); }), CUL_SHAPE);
  Tensor far(data, {4, 8}, {INT64_MAX / 2, 1});
  EXPECT_EQ(status([&] { call.required(&far.t, "x"); }), CUL_STRIDE);
  Tensor transposed(data, {8, 4}, {1, 8});
  EXPECT_EQ(status([&] { call.required(&transposed.t, "x"); }), CUL_STRIDE);
  EXPECT_EQ(status([&] { call.strided(&transposed.t, "x"); }), CUL_OK);
  Tensor shifted(data, {4, 8}, {}, 4);
  EXPECT_EQ(status([&] { call.required(&shifted.t, "x"); }), CUL_ALIGNMENT);
  EXPECT_EQ(status([&] { call.strided(&shifted.t, "x"); }), CUL_OK);
  Tensor odd(data, {4, 8}, {}, 2);
  EXPECT_EQ(status([&] { call.strided(&odd.t, "x"); }), CUL_ALIGNMENT);
  Tensor elsewhere(data, {4, 8});
  elsewhere.t.device.type = CUL_DEVICE_SIMT;
  EXPECT_EQ(status([&] { call.required(&elsewhere.t, "x"); }), CUL_DEVICE);
  Tensor strange(data, {4, 8});
  strange.t.dtype.bits = 64;
  EXPECT_EQ(status([&] { call.required(&strange.t, "x"); }), CUL_DTYPE);
  Tensor deep(data, {1, 1, 1, 1, 1, 1, 1, 1, 1});
  EXPECT_EQ(status([&] { call.required(&deep.t, "x"); }), CUL_SHAPE);
}

TEST_F(CallTest, overlapIsAboutElementsNotRanges) {
  auto view = [&](int64_t offset, std::vector<int64_t> shape, std::vector<int64_t> strides) {
    Tensor t(data + offset, std::move(shape), std::move(strides));
    return call.strided(&t.t, "t");
  };
  const View whole = view(0, {4, 16}, {16, 1});
  EXPECT_EQ(status([&] { call.disjoint(whole, view(64, {4, 16}, {16, 1})); }), CUL_OK);
  EXPECT_EQ(status([&] { call.disjoint(whole, view(48, {4, 16}, {16, 1})); }), CUL_UNSUPPORTED);
  EXPECT_EQ(status([&] { call.disjoint(whole, whole); }), CUL_UNSUPPORTED);
  EXPECT_EQ(status([&] { call.disjoint(whole, whole, true); }), CUL_OK);
  // The two halves of each row.
  const View left = view(0, {4, 8}, {16, 1}), right = view(8, {4, 8}, {16, 1}), middle = view(4, {4, 8}, {16, 1});
  EXPECT_EQ(status([&] { call.disjoint(left, right); }), CUL_OK);
  EXPECT_EQ(status([&] { call.disjoint(right, left); }), CUL_OK);
  EXPECT_EQ(status([&] { call.disjoint(left, middle); }), CUL_UNSUPPORTED);
  EXPECT_EQ(status([&] { call.disjoint(middle, right); }), CUL_UNSUPPORTED);
}

}  // namespace
}  // namespace culebra

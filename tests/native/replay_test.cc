// Lists of calls and updated graphs through the C ABI, on every backend that runs here.
#include "culebra/replay.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "culebra/glue.h"

namespace {

std::vector<int32_t> backends() {
  std::vector<int32_t> list;
  for (int32_t b = 0; b < CUL_BACKEND_COUNT; ++b) {
    int32_t count = 0;
    const char* reason = nullptr;
    if (cul_backend_devices(b, &count, &reason) == CUL_OK && count > 0) list.push_back(b);
  }
  return list;
}

class ReplayTest : public ::testing::TestWithParam<int32_t> {
 protected:
  static constexpr int64_t kElements = 4;
  static constexpr uint64_t kBytes = kElements * sizeof(float);

  void SetUp() override {
    ASSERT_EQ(cul_device_open(GetParam(), 0, nullptr, &device), CUL_OK) << cul_last_error();
    ASSERT_EQ(cul_stream_create(device, &stream), CUL_OK);
    cul_device_info info{};
    info.struct_size = sizeof info;
    ASSERT_EQ(cul_device_get_info(device, &info), CUL_OK);
    for (cul_tensor* t : {&x, &y, &sum}) {
      *t = {};
      ASSERT_EQ(cul_memory_alloc(device, kBytes, &t->data), CUL_OK);
      t->device = info.id;
      t->ndim = 1;
      t->dtype = {CUL_FLOAT, 32, 1};
      t->shape = shape;
    }
    upload(1);
    ASSERT_EQ(cul_fill(stream, y.data, 0, kBytes), CUL_OK);
    add.call.struct_size = sizeof add;
    add.a = &x;
    add.b = &y;
    add.y = &sum;
  }
  void TearDown() override {
    EXPECT_EQ(cul_stream_destroy(stream), CUL_OK);
    EXPECT_EQ(cul_memory_free(device, x.data), CUL_OK);
    EXPECT_EQ(cul_memory_free(device, y.data), CUL_OK);
    EXPECT_EQ(cul_memory_free(device, sum.data), CUL_OK);
    EXPECT_EQ(cul_device_close(device), CUL_OK) << cul_last_error();
  }

  void upload(float value) {
    for (float& v : host) v = value;
    ASSERT_EQ(cul_copy(stream, x.data, host, kBytes), CUL_OK);
    ASSERT_EQ(cul_stream_synchronize(stream), CUL_OK);
  }
  float result() {
    float out[kElements] = {};
    EXPECT_EQ(cul_copy(stream, out, y.data, kBytes), CUL_OK);
    EXPECT_EQ(cul_stream_synchronize(stream), CUL_OK) << cul_last_error();
    return out[kElements - 1];
  }
  cul_batch_call add_call() const {
    return {CUL_BATCH_OP, 0, reinterpret_cast<void*>(&cul_add), &add, 0};
  }

  cul_batch_call move_call() const { return {CUL_BATCH_COPY, 0, y.data, sum.data, kBytes}; }
  // y = x + y
  void accumulate() {
    ASSERT_EQ(cul_add(stream, &add), CUL_OK) << cul_last_error();
    ASSERT_EQ(cul_copy(stream, y.data, sum.data, kBytes), CUL_OK);
  }

  cul_device* device = nullptr;
  cul_stream* stream = nullptr;
  int64_t shape[1] = {kElements};
  float host[kElements] = {};
  cul_tensor x{}, y{}, sum{};
  cul_add_args add{};
};

TEST_P(ReplayTest, aBatchMakesItsCallsInOrder) {
  const cul_batch_call calls[] = {add_call(), move_call(), add_call(), {CUL_BATCH_COPY, 0, x.data, sum.data, kBytes},
                                  add_call(), move_call(), {CUL_BATCH_FILL, 0, x.data, nullptr, kBytes}, add_call(), move_call()};
  uint64_t done = 99;
  ASSERT_EQ(cul_batch(stream, calls, 9, &done), CUL_OK) << cul_last_error();
  EXPECT_EQ(done, 9u);
  EXPECT_EQ(result(), 3);  // y = 1; x = 1 + 1; y = 2 + 1; y = 0 + 3
}

TEST_P(ReplayTest, theFirstRefusalEndsABatchAndIsCounted) {
  cul_add_args bad = add;
  bad.a = nullptr;
  cul_batch_call calls[] = {{CUL_BATCH_FILL, 0x40, y.data, nullptr, kBytes},
                            {CUL_BATCH_OP, 0, reinterpret_cast<void*>(&cul_add), &bad, 0},
                            {CUL_BATCH_FILL, 0, y.data, nullptr, kBytes}};
  uint64_t done = 99;
  EXPECT_EQ(cul_batch(stream, calls, 3, &done), CUL_NULL_POINTER);
  EXPECT_NE(std::string(cul_last_error()).find("add"), std::string::npos) << cul_last_error();
  EXPECT_EQ(done, 1u);
  EXPECT_GT(result(), 3);  // 0x40404040
  calls[1].kind = 17;
  EXPECT_EQ(cul_batch(stream, calls, 3, &done), CUL_RANGE);
  EXPECT_NE(std::string(cul_last_error()).find("17"), std::string::npos) << cul_last_error();
  calls[1] = {};
  EXPECT_EQ(cul_batch(stream, calls, 3, &done), CUL_NULL_POINTER);
  EXPECT_EQ(done, 1u);
  EXPECT_EQ(cul_batch(stream, nullptr, 1, &done), CUL_NULL_POINTER);
  EXPECT_EQ(cul_batch(stream, nullptr, 0, &done), CUL_OK);
  EXPECT_EQ(cul_batch(stream, calls, 0, nullptr), CUL_NULL_POINTER);
}

TEST_P(ReplayTest, aBatchIsRecordedDuringACapture) {
  const cul_batch_call calls[] = {add_call(), move_call()};
  uint64_t done = 0, nodes = 0;
  cul_graph* graph = nullptr;
  ASSERT_EQ(cul_graph_begin_capture(stream), CUL_OK);
  ASSERT_EQ(cul_batch(stream, calls, 2, &done), CUL_OK);
  ASSERT_EQ(cul_graph_end_capture(stream, &graph), CUL_OK);
  EXPECT_EQ(result(), 0);
  EXPECT_EQ(cul_graph_node_count(graph, &nodes), CUL_OK);
  EXPECT_EQ(nodes, 2u);
  ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);
  ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);
  EXPECT_EQ(result(), 2);
  ASSERT_EQ(cul_graph_destroy(graph), CUL_OK);
}

TEST_P(ReplayTest, anUpdatedGraphRepeatsTheNewRecording) {
  cul_graph* graph = nullptr;
  int32_t in_place = -1;
  ASSERT_EQ(cul_graph_begin_capture(stream), CUL_OK);
  accumulate();
  ASSERT_EQ(cul_graph_end_capture(stream, &graph), CUL_OK);
  EXPECT_EQ(cul_graph_update(graph, stream, &in_place), CUL_UNSUPPORTED);  // no capture is open
  ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);                      // queued with the first recording

  ASSERT_EQ(cul_graph_begin_capture(stream), CUL_OK);
  add.a = &y;  // the same nodes, another operand
  accumulate();
  add.a = &x;
  ASSERT_EQ(cul_graph_update(graph, stream, &in_place), CUL_OK) << cul_last_error();
  EXPECT_EQ(in_place, 1);
  EXPECT_EQ(result(), 1);
  ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);
  ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);
  EXPECT_EQ(result(), 4);

  ASSERT_EQ(cul_graph_begin_capture(stream), CUL_OK);  // other nodes
  ASSERT_EQ(cul_fill(stream, y.data, 0, kBytes), CUL_OK);
  accumulate();
  ASSERT_EQ(cul_graph_update(graph, stream, &in_place), CUL_OK);
  ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);
  EXPECT_EQ(result(), 1);
  ASSERT_EQ(cul_graph_destroy(graph), CUL_OK);
}

TEST_P(ReplayTest, anUpdateFromAnotherDeviceIsRefusedAndEndsTheCapture) {
  cul_device* other = nullptr;
  cul_stream* foreign = nullptr;
  cul_graph* graph = nullptr;
  int32_t in_place = -1;
  ASSERT_EQ(cul_device_open(GetParam(), 0, nullptr, &other), CUL_OK);
  ASSERT_EQ(cul_stream_create(other, &foreign), CUL_OK);
  ASSERT_EQ(cul_graph_begin_capture(stream), CUL_OK);
  accumulate();
  ASSERT_EQ(cul_graph_end_capture(stream, &graph), CUL_OK);
  ASSERT_EQ(cul_graph_begin_capture(foreign), CUL_OK);
  EXPECT_EQ(cul_graph_update(graph, foreign, &in_place), CUL_DEVICE);
  EXPECT_EQ(cul_stream_synchronize(foreign), CUL_OK);
  ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);
  EXPECT_EQ(result(), 1);
  ASSERT_EQ(cul_graph_destroy(graph), CUL_OK);
  ASSERT_EQ(cul_stream_destroy(foreign), CUL_OK);
  ASSERT_EQ(cul_device_close(other), CUL_OK);
}

INSTANTIATE_TEST_SUITE_P(Backends, ReplayTest, ::testing::ValuesIn(backends()),
                         [](const auto& info) { return std::string(cul_backend_name(info.param)); });

}  // namespace

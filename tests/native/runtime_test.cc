// Devices, memory, streams, events and graphs through the C ABI, on every backend that runs here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "backends/backend.h"
#include "backends/host_stream.h"
#include "culebra/copy.h"
#include "culebra/culebra.h"
#include "culebra/testing.h"

namespace culebra {
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

class RuntimeTest : public ::testing::TestWithParam<int32_t> {
 protected:
  void SetUp() override {
    cul_device_options options{};
    options.struct_size = sizeof options;
    ASSERT_EQ(cul_device_open(GetParam(), 0, &options, &device), CUL_OK) << cul_last_error();
    ASSERT_EQ(cul_stream_create(device, &stream), CUL_OK);
  }
  void TearDown() override {
    cul_testing_fail_after(-1);
    if (stream) cul_stream_destroy(stream);
    EXPECT_EQ(cul_device_close(device), CUL_OK) << cul_last_error();
  }
  cul_memory_stats stats() {
    cul_memory_stats s{};
    s.struct_size = sizeof s;
    EXPECT_EQ(cul_memory_get_stats(device, &s), CUL_OK);
    return s;
  }
  cul_device* device = nullptr;
  cul_stream* stream = nullptr;
};

TEST_P(RuntimeTest, aCopyThatWaitsIsOverWhenItReturns) {
  std::vector<char> in(1 << 20, 5), out(1 << 20, 0);
  void* d = nullptr;
  ASSERT_EQ(cul_memory_alloc(device, in.size(), &d), CUL_OK);
  ASSERT_EQ(cul_copy_and_wait(stream, d, in.data(), in.size()), CUL_OK);
  std::fill(in.begin(), in.end(), 6);
  ASSERT_EQ(cul_copy_and_wait(stream, out.data(), d, out.size()), CUL_OK);
  EXPECT_EQ(out, std::vector<char>(out.size(), 5));
  int32_t done = 0;
  ASSERT_EQ(cul_fill(stream, d, 7, out.size()), CUL_OK);
  ASSERT_EQ(cul_copy_and_wait(stream, nullptr, nullptr, 0), CUL_OK);
  ASSERT_EQ(cul_stream_query(stream, &done), CUL_OK);
  EXPECT_EQ(done, 1);
  EXPECT_EQ(cul_copy_and_wait(stream, nullptr, d, 1), CUL_NULL_POINTER);
  ASSERT_EQ(cul_graph_begin_capture(stream), CUL_OK);
  EXPECT_EQ(cul_copy_and_wait(stream, d, in.data(), 1), CUL_UNSUPPORTED);
  EXPECT_EQ((cul_graph_abort_capture(stream)), CUL_OK);
  ASSERT_EQ(cul_memory_free(device, d), CUL_OK);
}

TEST_P(RuntimeTest, memoryIsCountedAndReused) {
  void *a = nullptr, *b = nullptr;
  ASSERT_EQ(cul_memory_alloc(device, 1000, &a), CUL_OK);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % 256, 0u);
  ASSERT_EQ(cul_memory_alloc_async(stream, 2000, &b), CUL_OK);
  EXPECT_EQ(stats().used_bytes, 3000u);
  EXPECT_EQ(stats().live_allocations, 2u);
  ASSERT_EQ(cul_memory_free_async(stream, b), CUL_OK);
  EXPECT_EQ(cul_memory_free_async(stream, b), CUL_RANGE);
  ASSERT_EQ(cul_stream_synchronize(stream), CUL_OK);
  ASSERT_EQ(cul_memory_free(device, a), CUL_OK);
  EXPECT_EQ(cul_memory_free(device, a), CUL_RANGE);
  EXPECT_EQ(stats().used_bytes, 0u);
  EXPECT_EQ(stats().peak_used_bytes, 3000u);
  ASSERT_EQ(cul_memory_trim(device, 0), CUL_OK);
  EXPECT_EQ(stats().reserved_bytes, 0u);
  void* nothing = nullptr;
  ASSERT_EQ(cul_memory_alloc(device, 0, &nothing), CUL_OK);
  EXPECT_NE(nothing, nullptr);
  ASSERT_EQ(cul_memory_free(device, nothing), CUL_OK);
}

TEST_P(RuntimeTest, theLimitIsAnAnswerNotADeath) {
  ASSERT_EQ(cul_memory_set_limit(device, 4096), CUL_OK);
  void *a = nullptr, *b = nullptr;
  ASSERT_EQ(cul_memory_alloc_async(stream, 4000, &a), CUL_OK);
  EXPECT_EQ(cul_memory_alloc_async(stream, 4000, &b), CUL_OUT_OF_MEMORY);
  EXPECT_NE(std::string(cul_last_error()).find("4096"), std::string::npos) << cul_last_error();
  // A free that is queued makes room for the next allocation on the stream.
  ASSERT_EQ(cul_memory_free_async(stream, a), CUL_OK);
  ASSERT_EQ(cul_memory_alloc_async(stream, 4000, &b), CUL_OK) << cul_last_error();
  ASSERT_EQ(cul_memory_free_async(stream, b), CUL_OK);
  EXPECT_EQ(cul_memory_alloc(device, UINT64_MAX, &a), CUL_OUT_OF_MEMORY);
}

TEST_P(RuntimeTest, aFailedAllocationLeavesNothingBehind) {
  for (int64_t after = 0; after < 3; ++after) {
    ASSERT_EQ(cul_memory_trim(device, 0), CUL_OK);  // with blocks to spare the pool would get over it
    const cul_memory_stats before = stats();
    cul_testing_fail_after(after);
    std::vector<void*> got;
    cul_status status = CUL_OK;
    for (int i = 0; i < 4 && status == CUL_OK; ++i) {
      void* p = nullptr;
      status = cul_memory_alloc(device, 4096 * (static_cast<uint64_t>(i) + 1 + 8 * static_cast<uint64_t>(after)), &p);
      if (status == CUL_OK) got.push_back(p);
    }
    cul_testing_fail_after(-1);
    EXPECT_EQ(status, CUL_OUT_OF_MEMORY);
    for (void* p : got) EXPECT_EQ(cul_memory_free(device, p), CUL_OK);
    EXPECT_EQ(stats().used_bytes, before.used_bytes);
    EXPECT_EQ(stats().live_allocations, before.live_allocations);
  }
}

TEST_P(RuntimeTest, copiesRunInOrder) {
  constexpr size_t kBytes = 1 << 16;
  void* d = nullptr;
  char *in = nullptr, *out = nullptr;
  ASSERT_EQ(cul_memory_alloc_async(stream, kBytes, &d), CUL_OK);
  ASSERT_EQ(cul_host_alloc(device, kBytes, reinterpret_cast<void**>(&in)), CUL_OK);
  ASSERT_EQ(cul_host_alloc(device, kBytes, reinterpret_cast<void**>(&out)), CUL_OK);
  std::memset(in, 7, kBytes);
  ASSERT_EQ(cul_copy(stream, d, in, kBytes), CUL_OK);
  ASSERT_EQ(cul_fill(stream, d, 9, kBytes / 2), CUL_OK);
  ASSERT_EQ(cul_copy(stream, out, d, kBytes), CUL_OK);
  ASSERT_EQ(cul_memory_free_async(stream, d), CUL_OK);
  ASSERT_EQ(cul_stream_synchronize(stream), CUL_OK) << cul_last_error();
  EXPECT_EQ(out[0], 9);
  EXPECT_EQ(out[kBytes - 1], 7);
  EXPECT_EQ(stats().host_bytes, 2 * kBytes);
  ASSERT_EQ(cul_host_free(device, in), CUL_OK);
  ASSERT_EQ(cul_host_free(device, out), CUL_OK);
}

TEST_P(RuntimeTest, eventsOrderStreams) {
  cul_stream* other = nullptr;
  cul_event* event = nullptr;
  ASSERT_EQ(cul_stream_create(device, &other), CUL_OK);
  ASSERT_EQ(cul_event_create(device, &event), CUL_OK);
  int32_t done = 0;
  EXPECT_EQ(cul_event_query(event, &done), CUL_OK);
  EXPECT_EQ(done, 1);  // never recorded
  constexpr size_t kBytes = 1 << 22;
  void* d = nullptr;
  ASSERT_EQ(cul_memory_alloc(device, kBytes, &d), CUL_OK);
  for (int round = 0; round < 20; ++round) {
    std::vector<char> out(kBytes);
    ASSERT_EQ(cul_fill(stream, d, round, kBytes), CUL_OK);
    ASSERT_EQ(cul_event_record(event, stream), CUL_OK);
    ASSERT_EQ(cul_stream_wait_event(other, event), CUL_OK);
    ASSERT_EQ(cul_copy(other, out.data(), d, kBytes), CUL_OK);
    ASSERT_EQ(cul_stream_synchronize(other), CUL_OK);
    ASSERT_EQ(out[kBytes - 1], round);
  }
  EXPECT_EQ(cul_event_synchronize(event), CUL_OK);
  double ms = -1;
  EXPECT_EQ(cul_event_elapsed_ms(event, event, &ms), CUL_OK);
  EXPECT_EQ(ms, 0);
  ASSERT_EQ(cul_memory_free(device, d), CUL_OK);
  ASSERT_EQ(cul_event_destroy(event), CUL_OK);
  ASSERT_EQ(cul_stream_destroy(other), CUL_OK);
}

TEST_P(RuntimeTest, aGraphReplaysAndOutlivesItsStream) {
  constexpr size_t kBytes = 4096;
  void *a = nullptr, *b = nullptr;
  ASSERT_EQ(cul_memory_alloc(device, kBytes, &a), CUL_OK);
  ASSERT_EQ(cul_memory_alloc(device, kBytes, &b), CUL_OK);
  cul_stream* capture = nullptr;
  ASSERT_EQ(cul_stream_create(device, &capture), CUL_OK);
  ASSERT_EQ(cul_fill(capture, b, 1, kBytes), CUL_OK);
  ASSERT_EQ(cul_graph_begin_capture(capture), CUL_OK);
  ASSERT_EQ(cul_copy(capture, b, a, kBytes), CUL_OK);
  void* p = nullptr;
  int32_t done = 0;
  EXPECT_EQ(cul_memory_alloc_async(capture, 16, &p), CUL_UNSUPPORTED);
  EXPECT_EQ(cul_stream_synchronize(capture), CUL_UNSUPPORTED);
  EXPECT_EQ(cul_stream_query(capture, &done), CUL_UNSUPPORTED);
  EXPECT_EQ(cul_graph_begin_capture(capture), CUL_UNSUPPORTED);
  cul_graph* graph = nullptr;
  ASSERT_EQ(cul_graph_end_capture(capture, &graph), CUL_OK);
  EXPECT_EQ(cul_graph_end_capture(capture, &graph), CUL_UNSUPPORTED);
  uint64_t nodes = 0;
  EXPECT_EQ(cul_graph_node_count(graph, &nodes), CUL_OK);
  EXPECT_EQ(nodes, 1u);
  ASSERT_EQ(cul_stream_destroy(capture), CUL_OK);
  char out[kBytes];
  for (int round = 2; round < 5; ++round) {
    ASSERT_EQ(cul_fill(stream, a, round, kBytes), CUL_OK);
    ASSERT_EQ(cul_copy(stream, out, b, kBytes), CUL_OK);
    ASSERT_EQ(cul_stream_synchronize(stream), CUL_OK);
    EXPECT_EQ(out[17], round - 1);  // the capture itself ran nothing
    ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);
    ASSERT_EQ(cul_copy(stream, out, b, kBytes), CUL_OK);
    ASSERT_EQ(cul_stream_synchronize(stream), CUL_OK);
    EXPECT_EQ(out[17], round);
  }
  ASSERT_EQ(cul_graph_destroy(graph), CUL_OK);
  ASSERT_EQ(cul_memory_free(device, a), CUL_OK);
  ASSERT_EQ(cul_memory_free(device, b), CUL_OK);
}

TEST_P(RuntimeTest, aDeviceWithLiveStreamsStaysOpen) {
  EXPECT_EQ(cul_device_close(device), CUL_UNSUPPORTED);
  EXPECT_NE(std::string(cul_last_error()).find("1 streams"), std::string::npos) << cul_last_error();
}

TEST_P(RuntimeTest, infoNamesTheDevice) {
  cul_device_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(cul_device_get_info(device, &info), CUL_OK);
  EXPECT_EQ(info.backend, GetParam());
  EXPECT_GT(info.multiprocessors, 0);
  EXPECT_NE(info.name[0], 0);
  info.struct_size = 4;
  EXPECT_EQ(cul_device_get_info(device, &info), CUL_RANGE);
}

INSTANTIATE_TEST_SUITE_P(Backends, RuntimeTest, ::testing::ValuesIn(backends()),
                         [](const auto& info) { return std::string(cul_backend_name(info.param)); });

TEST(Runtime, aFailedDeviceSaysSoAndLetsGo) {
  cul_device* device = nullptr;
  cul_stream* stream = nullptr;
  ASSERT_EQ(cul_device_open(CUL_BACKEND_CPU, 0, nullptr, &device), CUL_OK);
  ASSERT_EQ(cul_stream_create(device, &stream), CUL_OK);
  cul_event* event = nullptr;
  ASSERT_EQ(cul_event_create(device, &event), CUL_OK);
  void* p = nullptr;
  ASSERT_EQ(cul_memory_alloc_async(stream, 64, &p), CUL_OK);
  auto& host = static_cast<HostStream&>(*Stream::from(stream));
  bool ran = false;
  host.enqueue([] { throw DeviceError("planted"); });
  host.enqueue([&] { ran = true; });
  ASSERT_EQ(cul_stream_synchronize(stream), CUL_DEVICE_ERROR);
  EXPECT_STREQ(cul_last_error(), "planted");
  EXPECT_FALSE(ran);
  EXPECT_EQ(cul_fill(stream, p, 0, 64), CUL_DEVICE_ERROR);
  EXPECT_EQ(cul_memory_free_async(stream, p), CUL_OK);
  EXPECT_EQ(cul_event_destroy(event), CUL_OK);
  EXPECT_EQ(cul_stream_destroy(stream), CUL_DEVICE_ERROR);  // told once more, and gone
  EXPECT_EQ(cul_device_close(device), CUL_OK);
}

TEST(Runtime, everyBackendIsThereOrSaysWhyNot) {
  for (int32_t b = 0; b < CUL_BACKEND_COUNT; ++b) {
    int32_t count = -1;
    const char* reason = nullptr;
    ASSERT_EQ(cul_backend_devices(b, &count, &reason), CUL_OK);
    EXPECT_EQ(count == 0, std::strlen(reason) > 0) << cul_backend_name(b) << ": " << reason;
    cul_device* device = nullptr;
    if (count == 0) {
      EXPECT_EQ(cul_device_open(b, 0, nullptr, &device), CUL_UNSUPPORTED);
    }
    EXPECT_EQ(cul_device_open(b, 99, nullptr, &device), count ? CUL_RANGE : CUL_UNSUPPORTED);
  }
  int32_t count;
  const char* reason;
  EXPECT_EQ(cul_backend_devices(7, &count, &reason), CUL_RANGE);
  EXPECT_EQ(cul_backend_name(7), nullptr);
}

TEST(Runtime, theLastErrorBelongsToItsThread) {
  int32_t count;
  ASSERT_EQ(cul_backend_devices(7, &count, nullptr), CUL_NULL_POINTER);
  const std::string mine = cul_last_error();
  std::thread([] { EXPECT_STREQ(cul_last_error(), ""); }).join();
  EXPECT_EQ(cul_last_error(), mine);
}

TEST(Runtime, operatorsAreListed) {
  ASSERT_GT(cul_op_count(), 20);
  cul_op_info info{};
  info.struct_size = sizeof info;
  for (int32_t i = 0; i < cul_op_count(); ++i) {
    ASSERT_EQ(cul_op_get_info(i, &info), CUL_OK);
    EXPECT_GT(std::strlen(info.name), 0u);
    EXPECT_TRUE(info.backends & 1u << CUL_BACKEND_CPU) << info.name << " has no cpu version";
  }
  EXPECT_EQ(cul_op_get_info(cul_op_count(), &info), CUL_RANGE);
}

}  // namespace
}  // namespace culebra

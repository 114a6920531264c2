// The way to NCCL, on a machine without it: a library of the same interface takes its place (fake_nccl.cc).
#include "backends/cuda/nccl.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <vector>

#include "abi/status.h"
#include "backends/graph_keeper.h"

namespace culebra::cuda {
namespace {

constexpr const char* kFake[] = {"no-such-library.so", FAKE_NCCL};

void* fake(const char* name) {
  static void* const library = dlopen(FAKE_NCCL, RTLD_NOW);
  return dlsym(library, name);
}
std::string log(const char* fail = "") { return reinterpret_cast<const char* (*)(const char*)>(fake("fake_nccl_log"))(fail); }
int live() { return *static_cast<int*>(fake("fake_nccl_live")); }

// A stream that has but an address.
class FakeStream final : public Stream, public GraphKeeper {
 public:
  using Stream::Stream;
  CUstream_st* cuda() override { return reinterpret_cast<CUstream_st*>(0x77); }
  void synchronize() override {}
  bool idle() override { return true; }
  void copy(void*, const void*, uint64_t) override {}
  void fill(void*, int, uint64_t) override {}
  void* allocate(uint64_t) override { return nullptr; }
  void release(void*) override {}
  void begin_capture() override {}
  std::unique_ptr<Graph> end_capture() override { return nullptr; }
  void abort_capture() override {}
  bool capturing() const override { return capture; }
  void keep_for_graph(std::shared_ptr<void> what) override { kept.push_back(std::move(what)); }

  bool capture = false;
  std::vector<std::shared_ptr<void>> kept;
};

class NcclTest : public ::testing::Test {
 protected:
  void SetUp() override {
    log();
    std::string reason;
    library = Nccl::load(kFake, &reason);
    ASSERT_TRUE(library) << reason;
    device = cpu::open_device(0, {sizeof(cul_device_options), 1, 0, 0, 0, 0});
  }
  void TearDown() override { EXPECT_EQ(live(), 0); }

  std::unique_ptr<Nccl> library;
  std::unique_ptr<Device> device;
};

TEST_F(NcclTest, anExchangeIsOneGroupOfMessages) {
  FakeStream stream(*device);
  {
    const auto comm = library->join(*device, 1, 2, library->unique_id());
    EXPECT_EQ(device->children, 2);
    auto* const base = reinterpret_cast<char*>(0x1000);
    comm->exchange(stream, {{{base, base + 0x100, 16}, {base + 0x200, base + 0x300, 4}}, 2});
    EXPECT_EQ(live(), 1);
  }
  EXPECT_EQ(log(),
            "GetUniqueId\nCommInitRank 1 of 2\nGroupStart\n"
            "Send 0x1000 16 to 0 on 0x77\nRecv 0x1100 16 of 0 on 0x77\nSend 0x1010 16 to 1 on 0x77\nRecv 0x1110 16 of 1 on 0x77\n"
            "Send 0x1200 4 to 0 on 0x77\nRecv 0x1300 4 of 0 on 0x77\nSend 0x1204 4 to 1 on 0x77\nRecv 0x1304 4 of 1 on 0x77\n"
            "GroupEnd\nCommDestroy 1\n");
  EXPECT_EQ(device->children, 1);
}

TEST_F(NcclTest, emptyBlocksAreNotSent) {
  FakeStream stream(*device);
  const auto comm = library->join(*device, 0, 2, library->unique_id());
  log();
  comm->exchange(stream, {{{nullptr, nullptr, 0}, {}}, 1});
  EXPECT_EQ(log(), "GroupStart\nGroupEnd\n");
}

TEST_F(NcclTest, aFailureFailsTheDeviceAndEndsTheGroup) {
  for (const char* call : {"GroupStart", "Send", "Recv", "GroupEnd"}) {
    SCOPED_TRACE(call);
    const auto own = cpu::open_device(0, {sizeof(cul_device_options), 1, 0, 0, 0, 0});
    FakeStream stream(*own);
    auto comm = library->join(*own, 0, 1, library->unique_id());
    log(call);
    char block[8];
    try {
      comm->exchange(stream, {{{block, block + 4, 4}, {}}, 1});
      FAIL() << "the failure of " << call << " was lost";
    } catch (const DeviceError& e) {
      EXPECT_EQ(std::string(e.what()), std::string("all_to_all: nccl") + call + ": internal error");
    }
    EXPECT_TRUE(own->failed());
    const std::string seen = log();
    const bool begun = std::string(call) != "GroupStart";
    EXPECT_EQ(seen.find("GroupEnd") != std::string::npos, begun) << seen;
    comm.reset();
    EXPECT_EQ(log(), "CommAbort 0\n");  // the others may never come to destroy it
  }
}

TEST_F(NcclTest, anAbortComesOnceAndTakesDestroysPlace) {
  FakeStream stream(*device);
  {
    const auto comm = library->join(*device, 0, 1, library->unique_id());
    log();
    comm->abort();
    comm->abort();
    EXPECT_THROW(comm->exchange(stream, {}), Refusal);
  }
  EXPECT_EQ(log(), "CommAbort 0\n");
}

// NCCL's destruction of a communicator waits for the graphs that recorded it: it must come after them.
TEST_F(NcclTest, graphsKeepTheGroup) {
  FakeStream stream(*device);
  auto comm = library->join(*device, 0, 1, library->unique_id());
  char block[8];
  comm->exchange(stream, {{{block, block + 4, 4}, {}}, 1});
  EXPECT_TRUE(stream.kept.empty());
  stream.capture = true;
  comm->exchange(stream, {{{block, block + 4, 4}, {}}, 1});
  EXPECT_EQ(stream.kept.size(), 1u);
  log();
  comm.reset();
  EXPECT_EQ(log(), "");
  stream.kept.clear();
  EXPECT_EQ(log(), "CommDestroy 0\n");
}

TEST_F(NcclTest, aRankThatCannotJoinSaysWhy) {
  const cul_comm_id id = library->unique_id();
  log("CommInitRank");
  try {
    library->join(*device, 0, 2, id);
    FAIL();
  } catch (const Refusal& e) {
    EXPECT_EQ(e.status(), CUL_UNSUPPORTED);
    EXPECT_STREQ(e.what(), "cul_comm_create: rank 0 of 2: ncclCommInitRank: internal error");
  }
  EXPECT_EQ(device->children, 0);
  log("GetUniqueId");
  EXPECT_THROW(library->unique_id(), Refusal);
  log();
}

TEST(Nccl, withoutALibraryThereIsAReason) {
  std::string reason;
  const char* const missing[] = {"no-such-library.so"};
  EXPECT_FALSE(Nccl::load(missing, &reason));
  EXPECT_NE(reason.find("no-such-library"), std::string::npos) << reason;
  const char* const another[] = {"libm.so.6"};
  EXPECT_FALSE(Nccl::load(another, &reason));
  EXPECT_EQ(reason, "the NCCL library has no ncclGetUniqueId; it is too old");
}

}  // namespace
}  // namespace culebra::cuda

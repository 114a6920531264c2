// Ranks of one process: what an exchange copies, on streams driven by one thread or several, and how it ends when a rank does not come.
#include "culebra/communicator.h"

#include <memory>
#include <thread>

#include "culebra/moe.h"
#include "glue_harness.h"

namespace culebra {
namespace {

using glue_testing::Machine;
using glue_testing::Tensor;

constexpr int32_t kPatient = 60000, kImpatient = 100;  // ms

cul_comm_id new_id(const Machine& machine) {
  cul_comm_id id{};
  EXPECT_EQ(cul_comm_unique_id(machine.device, &id), CUL_OK) << cul_last_error();
  return id;
}

// A rank on a device of its own, with blocks of `elements` for each rank: send[q] is 100 rank + 10 q + i.
struct Rank {
  Rank(int32_t backend, int rank, int ranks, const cul_comm_id* given, int32_t timeout_ms, int64_t elements = 3)
      : machine(backend), rank(rank), send(machine, DType::f32, {ranks, elements}), recv(machine, DType::f32, {ranks, elements}) {
    id = given ? *given : new_id(machine);
    EXPECT_EQ(cul_comm_create(machine.device, rank, ranks, &id, timeout_ms, &comm), CUL_OK) << cul_last_error();
    send.fill([=](int64_t i) { return static_cast<double>(100 * rank + 10 * (i / elements) + i % elements); });
    args.call.struct_size = sizeof args;
    args.comm = comm;
    args.send = send;
    args.recv = recv;
  }
  ~Rank() {
    if (!comm) return;
    EXPECT_EQ(cul_comm_destroy(comm), CUL_OK) << cul_last_error();
  }
  cul_status exchange() { return cul_all_to_all(machine.stream, &args); }
  cul_status wait() { return cul_stream_synchronize(machine.stream); }
  void expect_received() {
    recv.read();
    for (int64_t i = 0; i < recv.elements(); ++i) {
      const int64_t elements = recv.shape()[1];
      EXPECT_EQ(recv[i], static_cast<double>(100 * (i / elements) + 10 * rank + i % elements)) << "rank " << rank << ", " << i;
    }
  }

  Machine machine;
  int rank;
  Tensor send, recv;
  cul_comm_id id{};
  cul_comm* comm = nullptr;
  cul_all_to_all_args args{};
};

class Communicators : public ::testing::TestWithParam<int32_t> {
 protected:
  // Ranks 0 to n - 1 of one group.
  std::vector<std::unique_ptr<Rank>> group(int n, int32_t timeout_ms = kPatient, int64_t elements = 3) {
    std::vector<std::unique_ptr<Rank>> all;
    for (int r = 0; r < n; ++r)
      all.push_back(std::make_unique<Rank>(GetParam(), r, n, r ? &all[0]->id : nullptr, timeout_ms, elements));
    return all;
  }
  void expect_failed(Rank& rank, const char* fragment) {
    EXPECT_EQ(rank.wait(), CUL_DEVICE_ERROR);
    EXPECT_NE(std::string(cul_last_error()).find(fragment), std::string::npos) << cul_last_error();
  }
};

TEST_P(Communicators, oneThreadDrivesAllRanks) {
  const auto ranks = group(3);
  for (int round = 0; round < 2; ++round)
    for (const auto& r : ranks) ASSERT_EQ(r->exchange(), CUL_OK) << cul_last_error();
  for (const auto& r : ranks) ASSERT_EQ(r->wait(), CUL_OK) << cul_last_error();
  for (const auto& r : ranks) r->expect_received();
}

TEST_P(Communicators, aThreadARank) {
  const auto ranks = group(3);
  std::vector<std::thread> threads;
  for (const auto& r : ranks)
    threads.emplace_back([&rank = *r] {
      for (int round = 0; round < 20; ++round) EXPECT_EQ(rank.exchange(), CUL_OK) << cul_last_error();
      EXPECT_EQ(rank.wait(), CUL_OK) << cul_last_error();
    });
  for (auto& t : threads) t.join();
  for (const auto& r : ranks) r->expect_received();
}

TEST_P(Communicators, oneRankAndNothingToSend) {
  const auto one = group(1);
  ASSERT_EQ(one[0]->exchange(), CUL_OK) << cul_last_error();
  one[0]->expect_received();
  const auto none = group(2, kPatient, 0);
  for (const auto& r : none) ASSERT_EQ(r->exchange(), CUL_OK) << cul_last_error();
  for (const auto& r : none) EXPECT_EQ(r->wait(), CUL_OK) << cul_last_error();
}

TEST_P(Communicators, aSecondPairTravelsAlong) {
  const auto ranks = group(2);
  std::vector<std::unique_ptr<Tensor>> ids;
  for (const auto& r : ranks) {
    for (int i = 0; i < 2; ++i) ids.push_back(std::make_unique<Tensor>(r->machine, DType::i32, std::vector<int64_t>{2, 1}));
    Tensor &send = *ids[ids.size() - 2], &recv = *ids.back();
    send.fill([&](int64_t i) { return static_cast<double>(10 * r->rank + i); });
    r->args.also_send = send;
    r->args.also_recv = recv;
  }
  for (const auto& r : ranks) ASSERT_EQ(r->exchange(), CUL_OK) << cul_last_error();
  for (const auto& r : ranks) ASSERT_EQ(r->wait(), CUL_OK) << cul_last_error();
  for (const auto& r : ranks) {
    r->expect_received();
    Tensor& recv = ids[static_cast<size_t>(2 * r->rank + 1)]->read();
    for (int64_t i = 0; i < 2; ++i) EXPECT_EQ(recv[i], static_cast<double>(10 * i + r->rank));
  }
}

TEST_P(Communicators, aGraphRepeatsIt) {
  const auto ranks = group(2);
  std::vector<cul_graph*> graphs;
  for (const auto& r : ranks) {
    ASSERT_EQ(cul_graph_begin_capture(r->machine.stream), CUL_OK);
    ASSERT_EQ(r->exchange(), CUL_OK) << cul_last_error();
    graphs.emplace_back();
    ASSERT_EQ(cul_graph_end_capture(r->machine.stream, &graphs.back()), CUL_OK);
  }
  for (int round = 0; round < 2; ++round)
    for (const auto& r : ranks) ASSERT_EQ(cul_graph_launch(graphs[static_cast<size_t>(r->rank)], r->machine.stream), CUL_OK);
  for (const auto& r : ranks) ASSERT_EQ(r->wait(), CUL_OK) << cul_last_error();
  for (const auto& r : ranks) r->expect_received();
  for (cul_graph* g : graphs) EXPECT_EQ(cul_graph_destroy(g), CUL_OK);
}

// What rank 0 queued before rank 1 wrote its blocks again must see them as they were.
TEST_P(Communicators, blocksAreReadInTheOrderOfTheirStreams) {
  const auto ranks = group(2);
  for (const auto& r : ranks) ASSERT_EQ(r->exchange(), CUL_OK);
  const cul_tensor& sent = *ranks[1]->args.send;
  ASSERT_EQ(cul_fill(ranks[1]->machine.stream, sent.data, 0, 2 * 3 * 4), CUL_OK);
  ASSERT_EQ(ranks[1]->wait(), CUL_OK) << cul_last_error();
  ASSERT_EQ(ranks[0]->wait(), CUL_OK) << cul_last_error();
  ranks[0]->expect_received();
}

TEST_P(Communicators, aRankThatDoesNotComeIsNamed) {
  const auto ranks = group(3, kImpatient);
  ASSERT_EQ(ranks[0]->exchange(), CUL_OK);
  ASSERT_EQ(ranks[2]->exchange(), CUL_OK);
  expect_failed(*ranks[0], "rank 1 of 3 did not come to exchange 1 within 100 ms");
  expect_failed(*ranks[2], "rank 1 of 3 did not come to exchange 1");
  EXPECT_EQ(ranks[1]->exchange(), CUL_UNSUPPORTED);  // its device is well
  EXPECT_NE(std::string(cul_last_error()).find("did not come"), std::string::npos) << cul_last_error();
}

// Rank 1's exchange stands behind an event that stands behind rank 0's: neither can go first, on any backend.
TEST_P(Communicators, ranksThatWaitForOneAnotherAreToldSo) {
  Machine machine(GetParam());
  cul_stream* second = nullptr;
  cul_event* event = nullptr;
  ASSERT_EQ(cul_stream_create(machine.device, &second), CUL_OK);
  ASSERT_EQ(cul_event_create(machine.device, &event), CUL_OK);
  const cul_comm_id id = new_id(machine);
  cul_comm* comms[2] = {};
  cul_stream* const streams[] = {machine.stream, second};
  {
    Tensor send(machine, DType::f32, {2, 4}), a(machine, DType::f32, {2, 4}), b(machine, DType::f32, {2, 4});
    const cul_tensor* const recv[] = {a, b};
    for (int r = 0; r < 2; ++r) ASSERT_EQ(cul_comm_create(machine.device, r, 2, &id, kImpatient, &comms[r]), CUL_OK) << cul_last_error();
    for (int r = 0; r < 2; ++r) {
      cul_all_to_all_args args{};
      args.call.struct_size = sizeof args;
      args.comm = comms[r], args.send = send, args.recv = recv[r];
      const cul_status waits = r == 1 ? cul_stream_wait_event(second, event) : CUL_OK;
      ASSERT_EQ(waits, CUL_OK) << cul_last_error();
      ASSERT_EQ(cul_all_to_all(streams[r], &args), CUL_OK) << cul_last_error();
      const cul_status recorded = r == 0 ? cul_event_record(event, machine.stream) : CUL_OK;
      ASSERT_EQ(recorded, CUL_OK) << cul_last_error();
    }
    EXPECT_EQ(cul_stream_synchronize(second), CUL_DEVICE_ERROR);
    EXPECT_NE(std::string(cul_last_error()).find("rank 1 of 2 did not come to exchange 1"), std::string::npos) << cul_last_error();
  }
  for (cul_comm* comm : comms) EXPECT_EQ(cul_comm_destroy(comm), CUL_OK);
  EXPECT_EQ(cul_event_destroy(event), CUL_OK);
  cul_stream_destroy(second);
}

TEST_P(Communicators, aRankThatLeavesEndsTheWait) {
  const auto ranks = group(2);
  ASSERT_EQ(ranks[0]->exchange(), CUL_OK);
  ASSERT_EQ(cul_comm_destroy(std::exchange(ranks[1]->comm, nullptr)), CUL_OK);
  expect_failed(*ranks[0], "rank 1 left the group before exchange 1");
}

TEST_P(Communicators, aDeviceThatFailsEndsTheWait) {
  const auto ranks = group(2);
  ASSERT_EQ(ranks[0]->exchange(), CUL_OK);
  Machine& machine = ranks[1]->machine;
  Tensor rows(machine, DType::f32, {1, 4}), inverse(machine, DType::i32, {1}), weights(machine, DType::f32, {1, 1}), y(machine, DType::f32, {1, 4});
  inverse.fill([](int64_t) { return 5; });
  cul_moe_combine_args bad{};
  bad.call.struct_size = sizeof bad;
  bad.call.flags = CUL_OP_VALIDATE;
  bad.rows = rows, bad.inverse = inverse, bad.weights = weights, bad.y = y, bad.k = 1;
  ASSERT_EQ(cul_moe_combine(machine.stream, &bad), CUL_OK) << cul_last_error();
  // Its exchange is dropped behind that failure, or refused if the failure was quicker.
  const cul_status queued = ranks[1]->exchange();
  EXPECT_TRUE(queued == CUL_OK || queued == CUL_DEVICE_ERROR) << cul_last_error();
  expect_failed(*ranks[0], "the device of rank 1 failed before exchange 1");
  expect_failed(*ranks[1], "moe_combine: inverse[0] = 5");
}

TEST_P(Communicators, anAbortEndsTheWait) {
  const auto ranks = group(2);
  ASSERT_EQ(ranks[0]->exchange(), CUL_OK);
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(cul_comm_abort(ranks[1]->comm), CUL_OK);
  });
  expect_failed(*ranks[0], "rank 1 aborted the group");
  other.join();
  EXPECT_EQ(ranks[1]->exchange(), CUL_UNSUPPORTED);
}

TEST_P(Communicators, blocksOfAnotherSizeFailAllRanks) {
  const cul_comm_id* id = nullptr;
  Rank a(GetParam(), 0, 2, id, kPatient, 3);
  Rank b(GetParam(), 1, 2, &a.id, kPatient, 4);
  ASSERT_EQ(a.exchange(), CUL_OK);
  ASSERT_EQ(b.exchange(), CUL_OK);
  expect_failed(a, "rank 0 exchanges blocks of 12 bytes, rank 1 of 16");
  expect_failed(b, "rank 0 exchanges blocks of 12 bytes, rank 1 of 16");
}

// On cpu, where both streams run by themselves.
TEST(CommunicatorsOnCpu, aRankIsOnOneStreamAtATime) {
  Rank a(CUL_BACKEND_CPU, 0, 2, nullptr, kPatient);
  Rank b(CUL_BACKEND_CPU, 1, 2, &a.id, kPatient);
  cul_stream* second = nullptr;
  ASSERT_EQ(cul_stream_create(a.machine.device, &second), CUL_OK);
  ASSERT_EQ(a.exchange(), CUL_OK);
  ASSERT_EQ(cul_all_to_all(second, &a.args), CUL_OK);
  EXPECT_EQ(a.wait(), CUL_DEVICE_ERROR);
  EXPECT_NE(std::string(cul_last_error()).find("another stream of it waits in one"), std::string::npos) << cul_last_error();
  EXPECT_EQ(cul_stream_destroy(second), CUL_DEVICE_ERROR);
}

TEST_P(Communicators, refusals) {
  Machine machine(GetParam());
  cul_comm_id id = new_id(machine), other = new_id(machine);
  cul_comm *a = nullptr, *b = nullptr;
  const auto create = [&](int rank, int ranks, const cul_comm_id& of, cul_comm** out) {
    return cul_comm_create(machine.device, rank, ranks, &of, kPatient, out);
  };
  EXPECT_EQ(create(2, 2, id, &a), CUL_RANGE);
  EXPECT_EQ(create(-1, 2, id, &a), CUL_RANGE);
  EXPECT_EQ(create(0, 0, id, &a), CUL_RANGE);
  EXPECT_EQ(cul_comm_create(machine.device, 0, 2, &id, 0, &a), CUL_RANGE);
  EXPECT_EQ(create(0, 2, cul_comm_id{}, &a), CUL_RANGE);
  cul_comm_id foreign = id;
  foreign.bytes[16] ^= 1;  // the number of its process
  EXPECT_EQ(create(0, 2, foreign, &a), CUL_UNSUPPORTED);
  EXPECT_NE(std::string(cul_last_error()).find("streams of one process"), std::string::npos) << cul_last_error();
  ASSERT_EQ(create(0, 2, id, &a), CUL_OK) << cul_last_error();
  EXPECT_EQ(create(0, 2, id, &b), CUL_RANGE) << "a rank twice";
  EXPECT_NE(std::string(cul_last_error()).find("rank 0 of this id was taken"), std::string::npos) << cul_last_error();
  EXPECT_EQ(create(1, 3, id, &b), CUL_RANGE) << "another number of ranks";
  EXPECT_EQ(cul_device_close(machine.device), CUL_UNSUPPORTED) << "a communicator is alive";
  if (GetParam() == CUL_BACKEND_SIMT) {
    Machine cpu(CUL_BACKEND_CPU);
    EXPECT_EQ(cul_comm_create(cpu.device, 1, 2, &id, kPatient, &b), CUL_DEVICE);
  }
  ASSERT_EQ(create(1, 2, id, &b), CUL_OK) << cul_last_error();

  {
    Tensor send(machine, DType::f32, {2, 4}), recv(machine, DType::f32, {2, 4}), three(machine, DType::f32, {3, 4}),
        half(machine, DType::f16, {2, 4}), strided(machine, DType::f32, {2, 4}, {8, 1});
    const auto exchange = [&](cul_comm* comm, const cul_tensor* s, const cul_tensor* r, const cul_tensor* also = nullptr) {
      cul_all_to_all_args args{};
      args.call.struct_size = sizeof args;
      args.comm = comm, args.send = s, args.recv = r, args.also_send = also;
      return cul_all_to_all(machine.stream, &args);
    };
    EXPECT_EQ(exchange(nullptr, send, recv), CUL_NULL_POINTER);
    EXPECT_EQ(exchange(a, nullptr, recv), CUL_NULL_POINTER);
    EXPECT_EQ(exchange(a, send, recv, half), CUL_NULL_POINTER);
    EXPECT_EQ(exchange(a, send, half), CUL_DTYPE);
    EXPECT_EQ(exchange(a, send, three), CUL_SHAPE);
    EXPECT_EQ(exchange(a, three, three), CUL_SHAPE);
    EXPECT_EQ(exchange(a, send, strided), CUL_STRIDE);
    EXPECT_EQ(exchange(a, send, send), CUL_UNSUPPORTED);
    Machine elsewhere(GetParam());
    cul_all_to_all_args args{};
    args.call.struct_size = sizeof args;
    args.comm = a, args.send = send, args.recv = recv;
    EXPECT_EQ(cul_all_to_all(elsewhere.stream, &args), CUL_DEVICE);
  }
  EXPECT_EQ(cul_comm_destroy(a), CUL_OK);
  EXPECT_EQ(create(0, 2, id, &a), CUL_RANGE) << "a rank that left comes back";
  EXPECT_EQ(cul_comm_destroy(b), CUL_OK);
  EXPECT_EQ(create(0, 2, id, &a), CUL_RANGE) << "an id that was used up";
  EXPECT_NE(std::string(cul_last_error()).find("used up"), std::string::npos) << cul_last_error();
  ASSERT_EQ(create(0, 1, other, &a), CUL_OK) << cul_last_error();
  EXPECT_EQ(cul_comm_destroy(a), CUL_OK);
}

INSTANTIATE_TEST_SUITE_P(, Communicators, ::testing::Values(CUL_BACKEND_CPU
#if CULEBRA_HAS_SIMT
                                                            ,
                                                            CUL_BACKEND_SIMT
#endif
                                                            ),
                         [](const auto& info) { return std::string(cul_backend_name(info.param)); });

}  // namespace
}  // namespace culebra

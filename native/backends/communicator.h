// Ranks that exchange blocks of memory: streams of one process on cpu and simt (host_communicator.cc), GPUs over NCCL on cuda
// (cuda/nccl.cc). The C ABI's handle is this object.
#pragma once
#include "backends/backend.h"
#include "culebra/communicator.h"

namespace culebra {

// One call: each pair of buffers is [ranks] blocks.
struct Exchange {
  struct Pair {
    const void* send;
    void* recv;
    uint64_t block_bytes;
  };
  Pair pairs[2];
  int count = 0;
};

class Communicator {
 public:
  Communicator(Device& device, int rank, int ranks) : device_(device), rank_(rank), ranks_(ranks) { ++device_.children; }
  virtual ~Communicator() { --device_.children; }
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  Device& device() const { return device_; }
  int rank() const { return rank_; }
  int ranks() const { return ranks_; }

  virtual void exchange(Stream& stream, const Exchange& exchange) = 0;
  virtual void abort() = 0;

  static Communicator* from(cul_comm* c) { return reinterpret_cast<Communicator*>(c); }
  cul_comm* handle() { return reinterpret_cast<cul_comm*>(this); }

 private:
  Device& device_;
  const int rank_, ranks_;
};

// cpu and simt.
cul_comm_id host_communicator_id(const Device& device);
std::unique_ptr<Communicator> join_host_communicator(Device& device, int rank, int ranks, const cul_comm_id& id, int timeout_ms);

}  // namespace culebra

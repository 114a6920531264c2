// NCCL where the machine has it: found at run time, never linked, its prototypes declared in nccl.cc.
#pragma once
#include <memory>
#include <span>
#include <string>

#include "backends/communicator.h"

namespace culebra::cuda {

class Nccl {
 public:
  // The first of the files that is there. Null: reason says why there is none that works.
  static std::unique_ptr<Nccl> load(std::span<const char* const> files, std::string* reason);
  virtual ~Nccl() = default;

  // Both throw Refusal with NCCL's own text.
  virtual cul_comm_id unique_id() const = 0;
  // Waits for all ranks. The device is the calling thread's current one.
  virtual std::unique_ptr<Communicator> join(Device& device, int rank, int ranks, const cul_comm_id& id) const = 0;
};

// The process's, loaded at the first call; throws Refusal with the reason where there is none.
const Nccl& nccl();

}  // namespace culebra::cuda

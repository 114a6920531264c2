// The allocations behind global_memory.h, with one bit per byte for "initialised" where the hooks are linked.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "backends/simt/emulator/global_memory.h"

namespace culebra::simt {

struct Allocation {
  Allocation(uintptr_t begin, size_t bytes);

  bool contains(uintptr_t address, size_t size) const {
    return address >= begin && size <= bytes && address - begin <= bytes - size;
  }

  const uintptr_t begin;
  const size_t bytes;
  // Bit i of word j: byte 16 j + i is initialised. Null without hooks.
  const std::unique_ptr<std::atomic<uint16_t>[]> initialized;
};

// Changes whenever an allocation comes or goes: what was found before may be gone.
uint64_t registry_generation();
std::shared_ptr<Allocation> find_allocation(uintptr_t address, size_t bytes);
// "; 4 bytes past the end of the allocation of 256 bytes at 0x...", for the reader of an error. Plain characters: a fibre that is
// abandoned frees nothing.
struct Neighbour {
  char text[160];
};
Neighbour nearest_allocation(uintptr_t address);

}  // namespace culebra::simt

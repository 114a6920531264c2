// Asynchronous products of warps (wgmma) that are under way, and the registers that they use. Internal to the emulator.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/simt/emulator/clock.h"
#include "backends/simt/emulator/emulator.h"
#include "backends/simt/emulator/site.h"

namespace culebra::simt {

// One thread's accumulators: their memory holds poison, `values` what the complete products have made of them.
struct Accumulators {
  uintptr_t address;
  std::vector<uint32_t> values;
  unsigned products;  // under way
  Site site;
};

struct RegisterRange {
  uintptr_t address;
  size_t bytes;
  Site site;

  bool overlaps(uintptr_t other, size_t other_bytes) const {
    return address < other + other_bytes && other < address + bytes;
  }
};

// What a thread's products use, and what its plain stores wrote since the last wgmma_fence.
struct RegisterWatch {
  bool fenced = false;
  std::vector<Accumulators> accumulators;
  std::vector<RegisterRange> operands;  // A in registers
  std::vector<RegisterRange> written;   // the latest of them
  size_t oldest = 0;
};

// A warp's part of a warpgroup's instruction.
struct Product {
  struct Lane {
    uintptr_t d;
    const uint32_t* a;
    uint32_t values[4];  // of a when it was issued
  };
  ProductType type;
  int columns;
  bool accumulate, a_in_registers, b_transposed;
  uint64_t a, b;  // descriptors
  unsigned group;
  ClockRef known;  // when it was issued
  Site site;
  Lane lanes[32];

  bool same_instruction(const Product& other) const {
    return type == other.type && columns == other.columns && accumulate == other.accumulate &&
           a_in_registers == other.a_in_registers && b_transposed == other.b_transposed && a == other.a && b == other.b && site.same_place(other.site);
  }
};

struct WarpProducts {
  std::vector<Product> pending;
  unsigned open_group = 0;
  unsigned issued = 0;
  uint16_t unit = 0;         // as which the tensor core reads memory
  uint32_t completions = 0;  // its epoch
};

// Instructions that some of a warpgroup's warps have issued and others not yet.
struct WarpgroupCall {
  unsigned number;  // counted by each warp
  unsigned warps;   // that have issued it
  Product instruction;
};

}  // namespace culebra::simt

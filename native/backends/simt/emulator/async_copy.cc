// cp.async: a copy lands when its issuer waits for it, not before. Until then its destination holds poison.
#include <cstring>

#include "backends/simt/emulator/state.h"

namespace culebra::simt {
namespace {

void land(Thread& self, const PendingCopy& copy) {
  Block& block = *self.block;
  char* destination = block.arena + copy.destination;
  std::memcpy(destination, copy.source, static_cast<size_t>(copy.source_bytes));
  std::memset(destination + copy.source_bytes, 0, static_cast<size_t>(copy.bytes - copy.source_bytes));
  if (block.grid.tracking) block.shadow.copy_landed(actor(self), copy.destination, static_cast<size_t>(copy.bytes), copy.site);
}

}  // namespace

void cp_async(uint32_t destination, const void* source, int bytes, int source_bytes, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  Block& block = *self.block;
  const Site site(Op::cp_async, here);
  self.site = site;
  char* target = shared_bytes(block, destination, static_cast<size_t>(bytes), static_cast<size_t>(bytes), site);
  if (reinterpret_cast<uintptr_t>(source) % static_cast<size_t>(bytes))
    fail(site, "source %p is not aligned to %d bytes", source, bytes);
  if (reinterpret_cast<uintptr_t>(source) - reinterpret_cast<uintptr_t>(block.arena) < kArenaBytes)
    fail(site, "source %p is shared memory; cp.async reads global memory", source);
  if (source_bytes) access_memory(self, source, static_cast<size_t>(source_bytes), Access::read, site);
  if (block.grid.tracking) block.shadow.copy_issued(actor(self), destination, static_cast<size_t>(bytes), site);
  if (block.grid.config.poison) std::memset(target, 0xff, static_cast<size_t>(bytes));
  self.copies.push_back({destination, source, bytes, source_bytes, self.open_group, site});
}

void cp_async_commit() {
  EmulatorScope scope;
  ++scope.self.open_group;
}

void cp_async_wait(int groups, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  self.site = Site(Op::cp_async_wait, here);
  // Groups are numbered as they are committed; all but the last `groups` of them must have landed.
  const unsigned landed_below = self.open_group - std::min(self.open_group, static_cast<unsigned>(groups));
  size_t count = 0;
  while (count < self.copies.size() && self.copies[count].group < landed_below) land(self, self.copies[count++]);
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<ptrdiff_t>(count));
}

void check_no_copies_pending(Thread& thread) {
  if (thread.copies.empty()) return;
  const PendingCopy& copy = thread.copies.front();
  report(copy.site, copy.group < thread.open_group ? "the thread exits without waiting for this copy"
                                                   : "the thread exits without committing this copy");
}

}  // namespace culebra::simt

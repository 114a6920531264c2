// mbarriers: arrivals of threads and bytes of the copy engine complete their phases.
#include <cinttypes>
#include <cstdio>

#include "backends/simt/emulator/state.h"

namespace culebra::simt {
namespace {

constexpr int64_t kMaxCount = (1 << 20) - 1;  // of arrivals and of bytes, in one phase

void arrive(uint32_t address, uint32_t bytes, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  Block& block = *self.block;
  const Site site(Op::mbarrier_arrive, here);
  Mbarrier& barrier = mbarrier_at(self, address, site);
  if (barrier.pending == 0)
    fail(site, "more threads arrive than the %u for which this mbarrier was initialised in %s", barrier.arrivals,
         barrier.site.describe());
  barrier.bytes += bytes;
  if (barrier.bytes > kMaxCount)
    fail(site, "%" PRId64 " bytes are announced for one phase; an mbarrier counts to %" PRId64, barrier.bytes,
         kMaxCount);
  if (block.grid.racing) {
    merge(barrier.arriving, block.linear, *self.known, block.linear);
    barrier.arriving.threads[self.linear] = self.epoch++;
  }
  --barrier.pending;
  settle(barrier, block);
}

}  // namespace

Mbarrier& mbarrier_at(Thread& self, uint32_t address, const Site& site) {
  self.site = site;
  Block& block = *self.block;
  shared_bytes(block, address, 8, 8, site);
  const auto it = block.mbarriers.find(address);
  if (it == block.mbarriers.end()) fail(site, "no mbarrier was initialised at shared address 0x%x", address);
  if (block.grid.tracking) block.shadow.access(actor(self), address, 8, Access::atomic, site);
  return it->second;
}

void settle(Mbarrier& barrier, Block& block) {
  block.grid.note_progress();
  if (barrier.pending || barrier.bytes) return;
  ++barrier.phase;
  barrier.pending = barrier.arrivals;
  if (block.grid.racing) barrier.completed.set(block.linear, barrier.arriving);
  for (Thread* thread : barrier.waiting) block.grid.make_ready(thread);
  barrier.waiting.clear();
}

void mbarrier_init(uint32_t address, int arrivals, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  Block& block = *self.block;
  const Site site(Op::mbarrier_init, here);
  self.site = site;
  shared_bytes(block, address, 8, 8, site);
  if (arrivals < 1 || arrivals > kMaxCount) fail(site, "%d arrivals; a phase has 1 to %" PRId64, arrivals, kMaxCount);
  if (const auto it = block.mbarriers.find(address); it != block.mbarriers.end())
    fail(site, "the mbarrier at shared address 0x%x was initialised before, in %s", address,
         it->second.site.describe());
  if (block.grid.tracking) block.shadow.access(actor(self), address, 8, Access::write, site);
  Mbarrier& barrier = block.mbarriers[address];
  barrier.arrivals = barrier.pending = static_cast<uint32_t>(arrivals);
  barrier.unit = block.new_unit();
  barrier.initializer = self.linear;
  barrier.site = site;
  barrier.arriving.threads.resize(barrier.unit + size_t{1});
}

void mbarrier_init_fence() {
  EmulatorScope scope;
  for (auto& [address, barrier] : scope.self.block->mbarriers)
    if (barrier.initializer == scope.self.linear) barrier.fenced = true;
}

void mbarrier_arrive(uint32_t address, Here here) { arrive(address, 0, here); }
void mbarrier_arrive_expect_bytes(uint32_t address, uint32_t bytes, Here here) { arrive(address, bytes, here); }

void mbarrier_wait(uint32_t address, uint32_t parity, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  Grid& grid = self.block->grid;
  const Site site(Op::mbarrier_wait, here);
  Mbarrier& barrier = mbarrier_at(self, address, site);
  if (parity > 1) fail(site, "%u is not a parity: phases alternate between 0 and 1", parity);
  while ((barrier.phase & 1) == parity) {
    barrier.waiting.push_back(&self);
    grid.wait(&self, "a phase of an mbarrier", site);
  }
  if (grid.racing) barrier.completed.learn(self);
}

void fence_async_proxy() {
  EmulatorScope scope;
  if (scope.self.block->grid.racing) scope.self.proxy_fences.push_back(scope.self.epoch++);
}

std::string describe_mbarriers(const Block& block) {
  std::string text;
  for (const auto& [address, barrier] : block.mbarriers) {
    if (barrier.waiting.empty()) continue;
    char line[256];
    std::snprintf(line, sizeof line,
                  "\n      the mbarrier at shared address 0x%x (%s) lacks %u of %u arrivals and %" PRId64
                  " bytes in its phase %u",
                  address, barrier.site.describe(), barrier.pending, barrier.arrivals, barrier.bytes, barrier.phase);
    text += line;
  }
  return text;
}

}  // namespace culebra::simt

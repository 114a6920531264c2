// Vector clocks: what a thread knows to have happened before it. Threads that met at a barrier share one immutable clock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace culebra::simt {

// threads[i] is the last epoch of thread i of the clock's own block that is known; blocks holds the same for other blocks, once
// acquire and release or a cluster's barrier have connected them. Behind the threads come the block's asynchronous units, in the
// order in which they first did something.
struct Clock {
  std::vector<uint32_t> threads;
  std::map<uint32_t, std::vector<uint32_t>> blocks;
};
using ClockRef = std::shared_ptr<const Clock>;

// Who accesses memory, and what is known to have happened before: a thread, or a unit that works for one.
struct Actor {
  uint32_t block, epoch;
  uint16_t index;
  const Clock* known;  // null when races are not looked for
};

// What one thread published, with the block it belongs to.
struct Release {
  uint32_t block = 0;
  ClockRef clock;
};

inline void merge(std::vector<uint32_t>& into, const std::vector<uint32_t>& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

// Whether a clock of block `own` has this epoch of a thread of block `block`.
inline bool knows(const Clock& clock, uint32_t own, uint32_t block, uint32_t thread, uint32_t epoch) {
  const std::vector<uint32_t>* threads = &clock.threads;
  if (block != own) {
    const auto it = clock.blocks.find(block);
    if (it == clock.blocks.end()) return false;
    threads = &it->second;
  }
  return thread < threads->size() && (*threads)[thread] >= epoch;
}

// Adds to a clock of block `own` everything that `from`, a clock of block `other`, knows.
inline void merge(Clock& into, uint32_t own, const Clock& from, uint32_t other) {
  merge(own == other ? into.threads : into.blocks[other], from.threads);
  for (const auto& [block, threads] : from.blocks) merge(block == own ? into.threads : into.blocks[block], threads);
}

}  // namespace culebra::simt

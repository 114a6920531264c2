// Vector clocks: what a thread knows to have happened before it. Threads that met at a barrier share one immutable clock.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace culebra::simt {

// threads[i] is the last epoch of thread i of the clock's own block that is known; blocks holds the same for other blocks, once
// acquire and release have connected them.
struct Clock {
  std::vector<uint32_t> threads;
  std::map<uint32_t, std::vector<uint32_t>> blocks;
};
using ClockRef = std::shared_ptr<const Clock>;

// What one thread published, with the block it belongs to.
struct Release {
  uint32_t block = 0;
  ClockRef clock;
};

inline void merge(std::vector<uint32_t>& into, const std::vector<uint32_t>& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

// Adds to a clock of block `own` everything that `from`, a clock of block `other`, knows.
inline void merge(Clock& into, uint32_t own, const Clock& from, uint32_t other) {
  merge(own == other ? into.threads : into.blocks[other], from.threads);
  for (const auto& [block, threads] : from.blocks) merge(block == own ? into.threads : into.blocks[block], threads);
}

}  // namespace culebra::simt

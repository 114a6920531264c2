// Fault injection for tests: makes the n-th allocation or driver call from now fail.
#pragma once
#include <atomic>
#include <cstdint>

#include "culebra/culebra.h"

namespace culebra::fault {

// -1: never. Counts down on every place that can be made to fail; that which takes it from 0 fails.
inline std::atomic<int64_t> countdown{-1};

inline bool strikes() {
  if (countdown.load(std::memory_order_relaxed) < 0) return false;
  return countdown.fetch_sub(1) == 0;
}

}  // namespace culebra::fault

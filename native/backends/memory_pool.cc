#include "backends/memory_pool.h"

#include <algorithm>
#include <cstdlib>

#include "backends/fault.h"

namespace culebra {
namespace {

constexpr uint64_t kAlignment = 256;
// A kept block serves a request that fills at least this share of it.
constexpr double kLeastFill = 0.75;

uint64_t round_up(uint64_t bytes) { return (std::max<uint64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

MemoryPool::~MemoryPool() {
  for (auto& [pointer, block] : live_) source_.give(pointer, block.capacity);
  for (auto& [pointer, bytes] : host_) std::free(pointer);
  for (auto& [capacity, pointer] : free_) source_.give(pointer, capacity);
}

void* MemoryPool::allocate(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (bytes > UINT64_MAX / 2 || (limit_ && used_ + bytes > limit_))
    refuse(CUL_OUT_OF_MEMORY, "%llu bytes were asked for; %llu of the limit of %llu are in use",
           static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(used_),
           static_cast<unsigned long long>(limit_));
  const uint64_t need = source_.reuse ? round_up(bytes) : bytes;
  void* pointer = nullptr;
  uint64_t capacity = need;
  const auto kept = free_.lower_bound(need);
  if (kept != free_.end() && static_cast<double>(need) >= kLeastFill * static_cast<double>(kept->first)) {
    capacity = kept->first;
    pointer = kept->second;
    kept_ -= capacity;
    free_.erase(kept);
  } else {
    if (!fault::strikes()) pointer = source_.take(need);
    if (!pointer && !free_.empty()) {
      trim_locked(0);
      pointer = source_.take(need);
    }
    if (!pointer)
      refuse(CUL_OUT_OF_MEMORY, "the system has no %llu bytes more; %llu are in use",
             static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(used_));
  }
  try {
    live_.emplace(pointer, Block{bytes, capacity, false});
  } catch (...) {
    source_.give(pointer, capacity);
    throw;
  }
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  ++allocations_;
  return pointer;
}

void MemoryPool::release(void* pointer) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = live_.find(pointer);
  if (it == live_.end()) refuse(CUL_RANGE, "%p is not live memory of this device", pointer);
  const Block block = it->second;
  live_.erase(it);
  used_ -= block.bytes;
  if (source_.reuse) {
    free_.emplace(block.capacity, pointer);
    kept_ += block.capacity;
  } else {
    source_.give(pointer, block.capacity);
  }
}

void MemoryPool::mark_release_queued(void* pointer) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = live_.find(pointer);
  if (it == live_.end() || it->second.queued) refuse(CUL_RANGE, "%p is not live memory of this device", pointer);
  it->second.queued = true;
}

uint64_t MemoryPool::size_of(void* pointer) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = live_.find(pointer);
  return it == live_.end() ? 0 : it->second.bytes;
}

void* MemoryPool::allocate_host(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  void* pointer =
      bytes > UINT64_MAX / 2 || fault::strikes() ? nullptr : std::aligned_alloc(kAlignment, round_up(bytes));
  if (!pointer)
    refuse(CUL_OUT_OF_MEMORY, "the system has no %llu bytes of host memory", static_cast<unsigned long long>(bytes));
  host_.emplace(pointer, bytes);
  host_bytes_ += bytes;
  return pointer;
}

void MemoryPool::release_host(void* pointer) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = host_.find(pointer);
  if (it == host_.end()) refuse(CUL_RANGE, "%p is not live host memory of this device", pointer);
  host_bytes_ -= it->second;
  host_.erase(it);
  std::free(pointer);
}

void MemoryPool::stats(cul_memory_stats& out) {
  std::lock_guard<std::mutex> lock(mutex_);
  out.used_bytes = used_;
  out.reserved_bytes = kept_;
  for (auto& [pointer, block] : live_) out.reserved_bytes += block.capacity;
  out.peak_used_bytes = peak_;
  out.limit_bytes = limit_;
  out.allocations = allocations_;
  out.live_allocations = live_.size();
  out.host_bytes = host_bytes_;
}

void MemoryPool::set_limit(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  limit_ = bytes;
}

void MemoryPool::trim(uint64_t keep_bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  trim_locked(keep_bytes);
}

void MemoryPool::trim_locked(uint64_t keep_bytes) {
  while (kept_ > keep_bytes && !free_.empty()) {
    const auto largest = std::prev(free_.end());
    kept_ -= largest->first;
    source_.give(largest->second, largest->first);
    free_.erase(largest);
  }
}

}  // namespace culebra

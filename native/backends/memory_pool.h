// Device memory of the host backends: counts, limits, keeps freed blocks for reuse.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_map>

#include "abi/status.h"

namespace culebra {

class MemoryPool {
 public:
  // Where blocks come from. Both are called under the pool's lock; take returns null when the system has no more.
  struct Source {
    void* (*take)(uint64_t bytes);
    void (*give)(void* pointer, uint64_t bytes);
    bool reuse;  // keep freed blocks (simt gives each back at once, so that its checks see every use after free)
  };

  MemoryPool(Source source, uint64_t limit_bytes) : source_(source), limit_(limit_bytes) {}
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  void* allocate(uint64_t bytes);  // throws OUT_OF_MEMORY
  void release(void* pointer);     // throws RANGE for a pointer that is not live
  // RANGE for a pointer that is not live, or whose free is queued already; marks it as queued.
  void mark_release_queued(void* pointer);
  uint64_t size_of(void* pointer);

  void* allocate_host(uint64_t bytes);
  void release_host(void* pointer);

  void stats(cul_memory_stats& out);
  void set_limit(uint64_t bytes);
  void trim(uint64_t keep_bytes);

 private:
  struct Block {
    uint64_t bytes;     // asked for
    uint64_t capacity;  // taken from the source
    bool queued;        // a stream-ordered free is on its way
  };
  void trim_locked(uint64_t keep_bytes);

  Source source_;
  std::mutex mutex_;
  std::unordered_map<void*, Block> live_;
  std::unordered_map<void*, uint64_t> host_;
  std::multimap<uint64_t, void*> free_;  // by capacity
  uint64_t limit_;
  uint64_t used_ = 0, peak_ = 0, kept_ = 0, allocations_ = 0, host_bytes_ = 0;
};

}  // namespace culebra

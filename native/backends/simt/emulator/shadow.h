// Shadow memory: which bytes are initialised, which are the destination of an unfinished copy, who touched them last.
// Kept per 16-byte chunk. Internal to the emulator.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backends/simt/emulator/clock.h"
#include "backends/simt/emulator/global_registry.h"
#include "backends/simt/emulator/site.h"

namespace culebra::simt {

struct Block;
struct Thread;
enum class Access : uint8_t;

inline constexpr size_t kChunkBytes = 16;

// One access: who, when, where in the source, which bytes of the chunk.
struct Event {
  Site site;
  uint32_t block, epoch;
  uint16_t thread, mask;

  bool operator==(const Event&) const = default;
};

// The accesses of a chunk that a later one may still race with.
struct History {
  std::vector<Event> reads, writes;

  // Records the access, reporting the first earlier one that is not ordered before it. max_reads bounds the memory;
  // beyond it, older reads are forgotten.
  void record(const Actor& who, uint16_t mask, Access kind, const Site& site, const char* memory, size_t max_reads);
  void clear() {
    reads.clear();
    writes.clear();
  }
};

class SharedShadow {
 public:
  void reset(size_t bytes);
  void grow(size_t bytes);
  // Offsets count from the start of the block's arena; the range is inside one variable.
  void access(const Actor& who, size_t offset, size_t bytes, Access kind, const Site& site);
  void copy_issued(const Actor& who, size_t offset, size_t bytes, const Site& site);
  void copy_landed(const Actor& who, size_t offset, size_t bytes, const Site& site);
  // Reports ordinary stores of the block's threads that an asynchronous operation is about to read or replace without their fence.
  void check_proxy_fences(const Block& block, const Actor& who, size_t offset, size_t bytes, const Site& site);

 private:
  struct Chunk {
    uint16_t initialized = 0, in_flight = 0;
    History history;
  };
  template <class F>
  void for_chunks(size_t offset, size_t bytes, F&& f);
  std::vector<Chunk> chunks_;
};

class GlobalShadow {
 public:
  // The range is inside `allocation`.
  void access(Thread& self, Allocation& allocation, uintptr_t address, size_t bytes, Access kind, const Site& site);
  // The allocation that holds the range, or null.
  Allocation* find(uintptr_t address, size_t bytes);

 private:
  static constexpr size_t kPageChunks = 64;
  struct Page {
    History chunks[kPageChunks];
  };
  History& history(uintptr_t chunk);

  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  uintptr_t last_page_index_ = ~uintptr_t{0};
  Page* last_page_ = nullptr;

  static constexpr size_t kRecent = 8;
  std::shared_ptr<Allocation> recent_[kRecent];
  size_t next_recent_ = 0;
  uint64_t generation_ = ~uint64_t{0};
};

}  // namespace culebra::simt

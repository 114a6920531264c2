#include "backends/simt/emulator/shadow.h"

#include <algorithm>

#include "backends/simt/emulator/state.h"

namespace culebra::simt {
namespace {

constexpr size_t kEveryRead = SIZE_MAX;
constexpr size_t kGlobalReads = 4;  // a weight is read by every block; a bounded memory of its readers finds most races

bool is_atomic(const Site& site) {
  switch (site.op()) {
    case Op::atomic:
    case Op::load_acquire:
    case Op::store_release:
    case Op::reduce_release:
    case Op::mbarrier_arrive:
    case Op::mbarrier_wait: return true;
    default: return false;
  }
}

bool ordered_before(const Event& event, const Actor& who) {
  if (event.block == who.block && event.thread == who.index) return true;
  return knows(*who.known, who.block, event.block, event.thread, event.epoch);
}

void report_race(const Event& earlier, bool earlier_write, const Actor& who, bool write, const Site& site,
                 const char* memory) {
  const char* now = write ? "write" : "read";
  const char* then = earlier_write ? "write" : "read";
  if (earlier.thread >= current.thread->block->grid.threads_per_block) {
    report(site, "race on %s memory: this %s is not ordered after the asynchronous %s of %s", memory, now, then,
           earlier.site.describe());
  } else if (earlier.block == who.block) {
    report(site, "race on %s memory: this %s is not ordered after the %s by thread %u in %s", memory, now, then,
           earlier.thread, earlier.site.describe());
  } else {
    report(site, "race on %s memory: this %s is not ordered after the %s by thread %u of block #%u in %s", memory, now,
           then, earlier.thread, earlier.block, earlier.site.describe());
  }
}

uint16_t chunk_mask(size_t low, size_t count) { return static_cast<uint16_t>(((1u << count) - 1) << low); }

// Splits a range at chunk borders: f(chunk, mask of its bytes).
template <class F>
void split(size_t begin, size_t bytes, F&& f) {
  for (const size_t end = begin + bytes; begin < end;) {
    const size_t low = begin % kChunkBytes, count = std::min(kChunkBytes - low, end - begin);
    f(begin / kChunkBytes, chunk_mask(low, count));
    begin += count;
  }
}

}  // namespace

void History::record(const Actor& who, uint16_t mask, Access kind, const Site& site, const char* memory,
                     size_t max_reads) {
  const bool write = kind != Access::read, atomic = kind == Access::atomic;
  const auto races = [&](const Event& event) {
    return (event.mask & mask) && !(atomic && is_atomic(event.site)) && !ordered_before(event, who);
  };
  if (const auto it = std::find_if(writes.begin(), writes.end(), races); it != writes.end())
    report_race(*it, true, who, write, site, memory);
  if (write)
    if (const auto it = std::find_if(reads.begin(), reads.end(), races); it != reads.end())
      report_race(*it, false, who, write, site, memory);

  const Event event{site, who.block, who.epoch, who.index, mask};
  // Whatever is ordered before this access is covered by it: a later access that races with the old one races with the new one.
  const auto cover = [&](std::vector<Event>& events) {
    for (Event& old : events)
      if ((old.mask & mask) && (write || ordered_before(old, who))) old.mask &= static_cast<uint16_t>(~mask);
    std::erase_if(events, [](const Event& old) { return old.mask == 0; });
  };
  if (write) {
    cover(writes);
    cover(reads);
    writes.push_back(event);
    return;
  }
  if (!reads.empty() && reads.back().thread == event.thread && reads.back().epoch == event.epoch &&
      reads.back().block == event.block) {
    reads.back().mask |= mask;  // a run of reads by one thread
    return;
  }
  cover(reads);
  if (reads.size() >= max_reads) reads.erase(reads.begin());
  reads.push_back(event);
}

// ---- shared memory

void SharedShadow::reset(size_t bytes) {
  for (Chunk& chunk : chunks_) {
    chunk.initialized = chunk.in_flight = 0;
    chunk.history.clear();
  }
  grow(bytes);
}

void SharedShadow::grow(size_t bytes) {
  const size_t chunks = (bytes + kChunkBytes - 1) / kChunkBytes;
  if (chunks_.size() < chunks) chunks_.resize(chunks);
}

void SharedShadow::access(const Actor& who, size_t offset, size_t bytes, Access kind, const Site& site) {
  split(offset, bytes, [&](size_t index, uint16_t mask) {
    Chunk& chunk = chunks_[index];
    if (chunk.in_flight & mask)
      report(site, "%s of shared memory at 0x%zx while an asynchronous copy into it is in flight: the wait is missing",
             kind == Access::read ? "read" : "write", offset);
    else if (kind != Access::write && (mask & ~chunk.initialized))
      report(site, "read of uninitialised shared memory at 0x%zx", offset);
    if (who.known) chunk.history.record(who, mask, kind, site, "shared", kEveryRead);
    if (kind != Access::read) chunk.initialized |= mask;
  });
}

void SharedShadow::copy_issued(const Actor& who, size_t offset, size_t bytes, const Site& site) {
  access(who, offset, bytes, Access::write, site);
  split(offset, bytes, [&](size_t index, uint16_t mask) { chunks_[index].in_flight |= mask; });
}

void SharedShadow::copy_landed(const Actor& who, size_t offset, size_t bytes, const Site& site) {
  split(offset, bytes, [&](size_t index, uint16_t mask) { chunks_[index].in_flight &= static_cast<uint16_t>(~mask); });
  access(who, offset, bytes, Access::write,
         site);  // others see it once they are ordered after the wait, not after the issue
}

void SharedShadow::check_proxy_fences(const Block& block, const Actor& who, size_t offset, size_t bytes,
                                      const Site& site) {
  split(offset, bytes, [&](size_t index, uint16_t mask) {
    for (const Event& event : chunks_[index].history.writes) {
      const bool asynchronous = event.thread >= block.threads.size() || event.site.op() == Op::bulk_copy ||
                                event.site.op() == Op::tensor_copy;
      if (asynchronous || !(event.mask & mask) || event.block != block.linear) continue;
      const auto& fences = block.threads[event.thread]->proxy_fences;
      const auto fence = std::lower_bound(fences.begin(), fences.end(), event.epoch);
      const bool own = event.thread == who.index;
      if (fence != fences.end() && (own || knows(*who.known, who.block, block.linear, event.thread, *fence))) continue;
      report(site, "thread %u did not call fence_async_proxy between its write in %s and the barrier", event.thread,
             event.site.describe());
    }
  });
}

// ---- global memory

Allocation* GlobalShadow::find(uintptr_t address, size_t bytes) {
  if (const uint64_t generation = registry_generation(); generation != generation_) {
    for (auto& allocation : recent_) allocation.reset();
    generation_ = generation;
  }
  for (auto& allocation : recent_)
    if (allocation && allocation->contains(address, bytes)) return allocation.get();
  auto found = find_allocation(address, bytes);
  if (!found) return nullptr;
  next_recent_ = (next_recent_ + 1) % kRecent;
  return (recent_[next_recent_] = std::move(found)).get();
}

History& GlobalShadow::history(uintptr_t chunk) {
  const uintptr_t index = chunk / kPageChunks;
  if (index != last_page_index_) {
    auto& page = pages_[index];
    if (!page) page = std::make_unique<Page>();
    last_page_ = page.get();
    last_page_index_ = index;
  }
  return last_page_->chunks[chunk % kPageChunks];
}

void GlobalShadow::access(Thread& self, Allocation& allocation, uintptr_t address, size_t bytes, Access kind,
                          const Site& site) {
  const size_t offset = address - allocation.begin;
  split(offset, bytes, [&](size_t index, uint16_t mask) {
    auto& initialized = allocation.initialized[index];
    if (kind == Access::write) {
      initialized.fetch_or(mask, std::memory_order_relaxed);
    } else if (mask & ~initialized.load(std::memory_order_relaxed)) {
      report(site, "read of uninitialised global memory, %zu bytes into the allocation of %zu bytes at %p", offset,
             allocation.bytes, reinterpret_cast<void*>(allocation.begin));
    }
  });
  if (self.block->grid.racing)
    split(address, bytes, [&](size_t chunk, uint16_t mask) {
      history(chunk).record(actor(self), mask, kind, site, "global", kGlobalReads);
    });
}

}  // namespace culebra::simt

#include "backends/simt/emulator/global_registry.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "backends/simt/emulator/config.h"

namespace culebra::simt {
namespace {

struct Registry {
  std::shared_mutex mutex;
  std::map<uintptr_t, std::shared_ptr<Allocation>> allocations;
  std::atomic<uint64_t> generation{0};
};
Registry& registry() {
  static Registry* const instance = new Registry;  // outlives every other static: memory is freed until the very end
  return *instance;
}

// The allocation that starts at or before the address. The caller holds the lock.
std::shared_ptr<Allocation> at_or_before(Registry& r, uintptr_t address) {
  auto it = r.allocations.upper_bound(address);
  return it == r.allocations.begin() ? nullptr : std::prev(it)->second;
}

void mark(const void* pointer, size_t size, bool initialized) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  Registry& r = registry();
  std::shared_lock lock(r.mutex);
  const auto allocation = at_or_before(r, address);
  if (!allocation || !allocation->initialized || address - allocation->begin >= allocation->bytes) return;
  size_t offset = address - allocation->begin;
  const size_t end = std::min(offset + size, allocation->bytes);
  while (offset < end) {
    const size_t low = offset % 16, count = std::min(16 - low, end - offset);
    const auto mask = static_cast<uint16_t>(((1u << count) - 1) << low);
    auto& word = allocation->initialized[offset / 16];
    if (initialized) {
      word.fetch_or(mask, std::memory_order_relaxed);
    } else {
      word.fetch_and(static_cast<uint16_t>(~mask), std::memory_order_relaxed);
    }
    offset += count;
  }
}

}  // namespace

Allocation::Allocation(uintptr_t begin, size_t bytes)
    : begin(begin),
      bytes(bytes),
      initialized(hooks_linked() ? new std::atomic<uint16_t>[(bytes + 15) / 16]() : nullptr) {}

void register_global(void* address, size_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  auto allocation = std::make_shared<Allocation>(begin, bytes);
  Registry& r = registry();
  std::unique_lock lock(r.mutex);
  r.allocations[begin] = std::move(allocation);
  ++r.generation;
}

void unregister_global(void* address) {
  Registry& r = registry();
  std::unique_lock lock(r.mutex);
  r.allocations.erase(reinterpret_cast<uintptr_t>(address));
  ++r.generation;
}

void mark_initialized(const void* address, size_t bytes) { mark(address, bytes, true); }
void mark_uninitialized(const void* address, size_t bytes) { mark(address, bytes, false); }

uint64_t registry_generation() { return registry().generation.load(std::memory_order_acquire); }

std::shared_ptr<Allocation> find_allocation(uintptr_t address, size_t bytes) {
  Registry& r = registry();
  std::shared_lock lock(r.mutex);
  auto allocation = at_or_before(r, address);
  return allocation && allocation->contains(address, bytes) ? allocation : nullptr;
}

Neighbour nearest_allocation(uintptr_t address) {
  Neighbour neighbour{};
  Registry& r = registry();
  std::shared_lock lock(r.mutex);
  const auto before = at_or_before(r, address);
  const auto it = r.allocations.upper_bound(address);
  const auto after = it == r.allocations.end() ? nullptr : it->second;
  const auto describe = [&](const Allocation& a, size_t distance, const char* relation) {
    std::snprintf(neighbour.text, sizeof neighbour.text, "; %zu bytes %s the allocation of %zu bytes at %p", distance,
                  relation, a.bytes, reinterpret_cast<void*>(a.begin));
  };
  if (before && address < before->begin + before->bytes) {
    std::snprintf(neighbour.text, sizeof neighbour.text,
                  "; it starts inside the allocation of %zu bytes at %p, %zu bytes before its end", before->bytes,
                  reinterpret_cast<void*>(before->begin), before->begin + before->bytes - address);
    return neighbour;
  }
  const size_t past = before ? address - (before->begin + before->bytes) : SIZE_MAX;
  const size_t ahead = after ? after->begin - address : SIZE_MAX;
  if (before && past <= ahead)
    describe(*before, past, "past the end of");
  else if (after)
    describe(*after, ahead, "before");
  return neighbour;
}

}  // namespace culebra::simt

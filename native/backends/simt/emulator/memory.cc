// Every access to shared or global memory that the emulation sees, and the instructions that order memory between threads.
#include <link.h>

#include <cstring>

#include "backends/simt/emulator/state.h"

namespace culebra::simt {
namespace {

// Constants live in the loaded modules. Reading them is what constant memory is on the device; writing is refused.
bool in_loaded_module(uintptr_t address, size_t bytes) {
  struct Range {
    uintptr_t begin, end;
    bool found;
  } range{address, address + bytes, false};
  dl_iterate_phdr(
      [](dl_phdr_info* module, size_t, void* data) {
        auto& wanted = *static_cast<Range*>(data);
        for (int i = 0; i < module->dlpi_phnum; ++i) {
          const ElfW(Phdr) & segment = module->dlpi_phdr[i];
          const uintptr_t begin = module->dlpi_addr + segment.p_vaddr;
          if (segment.p_type == PT_LOAD && wanted.begin >= begin && wanted.end <= begin + segment.p_memsz)
            wanted.found = true;
        }
        return wanted.found ? 1 : 0;
      },
      &range);
  return range.found;
}

const char* verb(Access kind) {
  return kind == Access::read ? "read" : kind == Access::write ? "write" : "atomic access";
}

void access_global(Thread& self, const void* pointer, size_t bytes, Access kind, const Site& site) {
  Grid& grid = self.block->grid;
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (Allocation* allocation = grid.global.find(address, bytes)) {
    if (grid.tracking) grid.global.access(self, *allocation, address, bytes, kind, site);
    return;
  }
  if (kind == Access::read) {
    const size_t offset = address - reinterpret_cast<uintptr_t>(grid.parameters);
    if (offset < grid.parameter_bytes && bytes <= grid.parameter_bytes - offset) return;
    if (in_loaded_module(address, bytes)) return;
  }
  for (auto& thread : self.block->threads)
    if (thread->fiber.on_stack(address))
      fail(site, "%s of %zu bytes at %p: local memory of thread %u", verb(kind), bytes, pointer, thread->linear);
  fail(site, "%s of %zu bytes at %p is outside every device allocation%s", verb(kind), bytes, pointer,
       nearest_allocation(address).text);
}

}  // namespace

Actor actor(const Thread& thread) {
  return {thread.block->linear, thread.epoch, static_cast<uint16_t>(thread.linear),
          thread.block->grid.racing ? thread.known.get() : nullptr};
}

ClockRef snapshot(Thread& self) {
  Clock clock = *self.known;
  clock.threads[self.linear] = self.epoch++;
  return std::make_shared<const Clock>(std::move(clock));
}

void access_memory(Thread& self, const void* pointer, size_t bytes, Access kind, const Site& site) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (self.fiber.on_stack(address)) return;  // registers and local memory
  Block& block = *self.block;
  const size_t offset = address - reinterpret_cast<uintptr_t>(block.arena);
  if (offset >= kArenaBytes) return access_global(self, pointer, bytes, kind, site);
  shared_bytes(block, static_cast<uint32_t>(offset), bytes, 1, site);
  if (block.grid.tracking) block.shadow.access(actor(self), offset, bytes, kind, site);
}

namespace {

void check_vector(const void* pointer, size_t bytes, Access kind, Here here) {
  EmulatorScope scope;
  const Site site(Op::vector_access, here);
  if (reinterpret_cast<uintptr_t>(pointer) % bytes)
    fail(site, "%s of %zu bytes at %p, which is not aligned to %zu bytes", verb(kind), bytes, pointer, bytes);
  access_memory(scope.self, pointer, bytes, kind, site);
}

// ---- acquire and release, as the PTX memory model composes them

void learn(Thread& self, const Release& release) {
  Clock clock = *self.known;
  merge(clock, self.block->linear, *release.clock, release.block);
  self.known = std::make_shared<const Clock>(std::move(clock));
}

// What readers of the flag will learn. A read-modify-write continues the release sequence of those before it; a store begins anew.
void publish(Thread& self, const void* address, const ClockRef& clock, bool keep_earlier) {
  Release& release = self.block->grid.releases[reinterpret_cast<uintptr_t>(address)];
  if (!keep_earlier || !release.clock) {
    release = {self.block->linear, clock};
    return;
  }
  Clock both = *clock;
  merge(both, self.block->linear, *release.clock, release.block);
  release = {self.block->linear, std::make_shared<const Clock>(std::move(both))};
}

const Release* published(Thread& self, const void* address) {
  auto& releases = self.block->grid.releases;
  const auto it = releases.find(reinterpret_cast<uintptr_t>(address));
  return it == releases.end() || !it->second.clock ? nullptr : &it->second;
}

void check_atomic(Thread& self, const void* address, size_t bytes, const Site& site) {
  self.site = site;
  if (reinterpret_cast<uintptr_t>(address) % bytes) fail(site, "%p is not aligned to %zu bytes", address, bytes);
  access_memory(self, address, bytes, Access::atomic, site);
}

template <class T>
T apply(AtomicOp op, T old, T value, T expected) {
  switch (op) {
    case AtomicOp::add: {
      if constexpr (std::is_integral_v<T>) {
        using U = std::make_unsigned_t<T>;
        return static_cast<T>(static_cast<U>(old) + static_cast<U>(value));  // wraps
      } else {
        return old + value;
      }
    }
    case AtomicOp::min: return value < old ? value : old;
    case AtomicOp::max: return old < value ? value : old;
    case AtomicOp::exchange: return value;
    case AtomicOp::compare_exchange: return old == expected ? value : old;
    default: break;
  }
  if constexpr (std::is_integral_v<T>) {
    if (op == AtomicOp::bit_and) return old & value;
    if (op == AtomicOp::bit_or) return old | value;
    return old ^ value;
  }
  return old;
}

// Grids of several streams run on several OS threads: the memory is updated with the host's atomics.
template <class T>
T update(T* address, AtomicOp op, T value, T expected) {
  T old, next;
  __atomic_load(address, &old, __ATOMIC_ACQUIRE);
  do {
    next = apply(op, old, value, expected);
  } while (!__atomic_compare_exchange(address, &old, &next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
  return old;
}

}  // namespace

void check_read(const void* pointer, size_t bytes, Here here) { check_vector(pointer, bytes, Access::read, here); }
void check_write(void* pointer, size_t bytes, Here here) { check_vector(pointer, bytes, Access::write, here); }

template <class T>
T atomic(AtomicOp op, T* address, T value, T expected, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  const Site site(Op::atomic, here);
  check_atomic(self, address, sizeof(T), site);
  const T old = update(address, op, value, expected);
  const T now = apply(op, old, value, expected);
  if (self.block->grid.racing) {
    if (const Release* release = published(self, address)) self.heard.push_back(*release);
    if (self.fenced) publish(self, address, self.fenced, true);
  }
  // An atomic that changed nothing may be a spinning one.
  if (std::memcmp(&old, &now, sizeof(T)) == 0) {
    self.block->grid.spin(&self, site);
  } else {
    self.block->grid.note_progress();
  }
  return old;
}

template <class T>
T load_acquire(const T* address, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  const Site site(Op::load_acquire, here);
  check_atomic(self, address, sizeof(T), site);
  self.block->grid.spin(&self, site);
  T value;
  __atomic_load(address, &value, __ATOMIC_ACQUIRE);
  if (self.block->grid.racing)
    if (const Release* release = published(self, address)) learn(self, *release);
  return value;
}

template <class T>
void store_release(T* address, T value, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  check_atomic(self, address, sizeof(T), Site(Op::store_release, here));
  if (self.block->grid.racing) publish(self, address, snapshot(self), false);
  __atomic_store(address, &value, __ATOMIC_RELEASE);
  self.block->grid.note_progress();
}

template <class T>
void reduce_add_release(T* address, T value, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  check_atomic(self, address, sizeof(T), Site(Op::reduce_release, here));
  if (self.block->grid.racing) publish(self, address, snapshot(self), true);
  update(address, AtomicOp::add, value, T{});
  self.block->grid.note_progress();
}

#define CUL_INSTANTIATE(T)                        \
  template T atomic<T>(AtomicOp, T*, T, T, Here); \
  template T load_acquire<T>(const T*, Here);     \
  template void store_release<T>(T*, T, Here);    \
  template void reduce_add_release<T>(T*, T, Here);
CUL_INSTANTIATE(int)
CUL_INSTANTIATE(unsigned)
CUL_INSTANTIATE(long long)
CUL_INSTANTIATE(unsigned long long)
CUL_INSTANTIATE(float)
#undef CUL_INSTANTIATE

void thread_fence() {
  EmulatorScope scope;
  Thread& self = scope.self;
  if (!self.block->grid.racing) return;
  for (const Release& release : self.heard) learn(self, release);
  self.heard.clear();
  self.fenced = snapshot(self);
}

void yield_to_others(Here here) {
  EmulatorScope scope;
  scope.self.block->grid.spin(&scope.self, Site(Op::spin_wait, here));
}

}  // namespace culebra::simt

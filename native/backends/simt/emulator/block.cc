// A block's threads and its shared memory: one arena with the dynamic part first, static variables after it, red zones between.
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <new>

#include "backends/simt/emulator/address_sanitizer.h"
#include "backends/simt/emulator/state.h"

namespace culebra::simt {
namespace {

constexpr size_t kRedZoneBytes = 64;
constexpr int kPoison = 0xff;  // NaN in every floating-point type
constexpr const char* kDynamic = "dynamic shared memory";

size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

void ArenaDeleter::operator()(char* arena) const {
  CUL_ASAN_UNPOISON(arena, kArenaBytes);
  std::free(arena);
}

Block::Block(Grid& grid, Cluster& cluster, uint32_t rank)
    : grid(grid),
      cluster(cluster),
      rank(rank),
      arena_owner(static_cast<char*>(std::aligned_alloc(1024, kArenaBytes))),
      arena(arena_owner.get()) {
  if (!arena) throw std::bad_alloc();
  const unsigned n = grid.threads_per_block;
  warps.resize((n + 31) / 32);
  threads.reserve(n);
  for (unsigned i = 0; i < n; ++i) {
    Thread& thread = *threads.emplace_back(std::make_unique<Thread>());
    thread.linear = i;
    thread.lane = i % 32;
    thread.warp = i / 32;
    thread.block = this;
    const dim3 extent = grid.launch.block;
    thread.indices = {{i % extent.x, i / extent.x % extent.y, i / extent.x / extent.y}, {}, extent, grid.launch.grid};
    warps[thread.warp].lanes[thread.lane] = &thread;
    warps[thread.warp].exists |= 1u << thread.lane;
    thread.fiber.acquire_stack();
  }
}

void Block::start(uint3 index) {
  linear = index.x + grid.launch.grid.x * (index.y + grid.launch.grid.y * index.z);
  alive = grid.threads_per_block;
  mbarriers.clear();
  warpgroup_calls.clear();
  peer_reads.clear();
  units = 0;
  const ClockRef nothing =
      grid.racing ? std::make_shared<const Clock>(Clock{std::vector<uint32_t>(alive), {}}) : nullptr;
  for (auto& thread : threads) {
    thread->indices.block = index;
    thread->done = false;
    thread->site = {};
    thread->copies.clear();
    thread->open_group = 0;
    thread->known = nothing;
    thread->epoch = 1;
    thread->fenced = nullptr;
    thread->heard.clear();
    thread->proxy_fences.clear();
    thread->registers = nullptr;
    thread->cluster_phase = 0;
  }
  for (Warp& warp : warps) {
    warp.exited = 0;
    warp.products = nullptr;
  }

  CUL_ASAN_POISON(arena, kArenaBytes);
  variables.clear();
  arena_top = kSharedBase;
  shared_bytes = 0;
  shadow.reset(grid.tracking ? arena_top : 0);
  if (const size_t bytes = grid.launch.dynamic_shared_bytes) {
    variables.push_back({nullptr, kDynamic, kSharedBase, bytes});
    arena_top = kSharedBase + bytes;
    shared_bytes = bytes;
    CUL_ASAN_UNPOISON(arena + kSharedBase, bytes);
    if (grid.config.poison) std::memset(arena + kSharedBase, kPoison, bytes);
    if (grid.tracking) shadow.grow(arena_top);
  }
}

void* dynamic_shared(size_t alignment, Here here) {
  EmulatorScope scope;
  Block& block = *scope.self.block;
  const Site site(Op::shared_variable, here);
  if (alignment > 1024) fail(site, "dynamic shared memory is aligned to at most 1024 bytes, not %zu", alignment);
  if (block.grid.launch.dynamic_shared_bytes == 0)
    fail(site, "the kernel uses dynamic shared memory but was launched with 0 bytes");
  return block.arena + kSharedBase;
}

void* static_shared(const void* key, size_t bytes, size_t alignment, const char* name, Here here) {
  EmulatorScope scope;
  Block& block = *scope.self.block;
  for (const SharedVariable& variable : block.variables)
    if (variable.key == key) return block.arena + variable.begin;

  block.shared_bytes += bytes;
  if (block.shared_bytes > kSharedLimitBytes)
    fail(Site(Op::shared_variable, here), "%s brings the block to %zu bytes of shared memory; a block has %zu", name,
         block.shared_bytes, kSharedLimitBytes);
  const size_t begin = round_up(block.arena_top + kRedZoneBytes, std::max<size_t>(alignment, 16));
  block.variables.push_back({key, name, begin, bytes});
  block.arena_top = begin + bytes;
  CUL_ASAN_UNPOISON(block.arena + begin, bytes);
  if (block.grid.config.poison) std::memset(block.arena + begin, kPoison, bytes);
  if (block.grid.tracking) block.shadow.grow(block.arena_top);
  return block.arena + begin;
}

const SharedVariable* Block::shared_variable_at(size_t offset, size_t bytes) const {
  for (const SharedVariable& variable : variables)
    if (offset >= variable.begin && offset + bytes <= variable.begin + variable.bytes) return &variable;
  return nullptr;
}

uint32_t shared_offset(const void* pointer, Here here) {
  EmulatorScope scope;
  const size_t offset = reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(scope.self.block->arena);
  if (offset >= kArenaBytes)
    fail(Site(Op::shared_pointer, here), "%p is not an address in this block's shared memory", pointer);
  return static_cast<uint32_t>(offset);
}

char* shared_bytes(Block& block, uint32_t address, size_t bytes, size_t alignment, const Site& site) {
  if (address % alignment) fail(site, "shared address 0x%x is not aligned to %zu bytes", address, alignment);
  if (!block.shared_variable_at(address, bytes)) {
    const SharedVariable* nearest = nullptr;
    for (const SharedVariable& variable : block.variables)
      if (variable.begin <= address) nearest = &variable;
    if (!nearest)
      fail(site, "%zu bytes at shared address 0x%x: the block has no shared variable there", bytes, address);
    fail(site,
         "%zu bytes at shared address 0x%x are outside every shared variable: they start %zu bytes into %s, which has "
         "%zu",
         bytes, address, address - nearest->begin, nearest->name, nearest->bytes);
  }
  return block.arena + address;
}

}  // namespace culebra::simt

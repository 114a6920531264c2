// The state of a running grid: threads, warps, blocks, and the scheduler that runs them on fibres. Internal to the emulator.
#pragma once

#include <cstdarg>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backends/simt/emulator/clock.h"
#include "backends/simt/emulator/config.h"
#include "backends/simt/emulator/emulator.h"
#include "backends/simt/emulator/fiber.h"
#include "backends/simt/emulator/products.h"
#include "backends/simt/emulator/shadow.h"
#include "backends/simt/emulator/site.h"
#include "device/tensor_request.h"

namespace culebra::simt {

class Grid;
struct Block;

struct PendingCopy {
  uint32_t destination;
  const void* source;
  int bytes, source_bytes;
  unsigned group;
  Site site;
};

struct Thread {
  ThreadIndices indices;
  unsigned linear = 0, lane = 0, warp = 0;
  Block* block = nullptr;
  Fiber fiber;
  bool done = false;
  const char* waiting_for = nullptr;  // null while it can run
  Site site;                          // the last emulated instruction
  BarrierVote vote{};

  // cp.async: copies of committed groups that have not landed, oldest first, then those of the open group.
  std::vector<PendingCopy> copies;
  unsigned open_group = 0;

  // Races: what happened before, the own epoch, and fences waiting for an atomic to carry them.
  ClockRef known;
  uint32_t epoch = 1;
  ClockRef fenced;                     // published by the thread's next atomics
  std::vector<Release> heard;          // read by its atomics, in force after its next fence
  std::vector<uint32_t> proxy_fences;  // epochs up to which its stores are there for asynchronous operations

  // wgmma: what the calling thread may not touch; null until it has used one.
  std::unique_ptr<RegisterWatch> registers;

  // barrier.cluster: the phase that it has arrived for and not waited for, or 0.
  uint32_t cluster_phase = 0;
};

// The thread as one who accesses memory now.
Actor actor(const Thread& thread);
// What the thread knows, with what it has done itself; its next accesses are later.
ClockRef snapshot(Thread& thread);

// Lanes that have arrived at one warp-level instruction.
struct Meeting {
  uint32_t mask = 0, arrived = 0;
  Site site;
  void* arguments[32];
};

struct Warp {
  Thread* lanes[32] = {};
  uint32_t exists = 0, exited = 0;
  Meeting meetings[32];
  std::unique_ptr<WarpProducts> products;  // wgmma; null until the warp has used one
};

struct Barrier {
  unsigned arrived = 0, expected = 0;
  bool whole_block = false;  // __syncthreads: exited threads do not count
  int count = 0;
  Site site;
  std::vector<Thread*> waiting;
  ClockRef published;  // by threads that arrived without waiting
};

// What others learn at once from one clock: threads that share what they know go on sharing it.
class Lesson {
 public:
  // A clock of this block.
  void set(uint32_t block, const Clock& clock) {
    block_ = block;
    clock_ = std::make_shared<const Clock>(clock);
    before_ = after_ = nullptr;
  }
  void learn(Thread& thread);

 private:
  uint32_t block_ = 0;
  ClockRef clock_, before_, after_;
};

// A barrier in shared memory (mbarrier). Phase 0 is the first to be completed.
struct Mbarrier {
  uint32_t arrivals, pending;  // of threads: a phase's, and those that this one lacks
  int64_t bytes = 0;           // announced and not landed
  uint32_t phase = 0;
  uint16_t unit;          // as which its copies access memory
  uint32_t landings = 0;  // that unit's epoch
  unsigned initializer;
  bool fenced = false;
  Site site;
  Clock arriving;    // what is known to those who have arrived in any phase so far
  Lesson completed;  // and in the complete ones
  std::vector<Thread*> waiting;
};

struct SharedVariable {
  const void* key;
  const char* name;
  size_t begin, bytes;
};

// Offset 0 of the shared window stays unused, so that a null address is never valid.
inline constexpr size_t kSharedBase = 1024;
inline constexpr size_t kSharedLimitBytes = 227 << 10;  // static and dynamic together, sm_90
inline constexpr size_t kArenaBytes = 512 << 10;        // the limit, red zones and alignment
inline constexpr uint64_t kMaxClusterBlocks = 8;        // what every device of 9.0 takes

// Each stack is two mappings of the process, which has 65530 by default.
inline constexpr size_t kMaxResidentThreads = 16384;

struct ArenaDeleter {
  void operator()(char* arena) const;
};

struct Cluster;

struct Block {
  Block(Grid& grid, Cluster& cluster, uint32_t rank);

  void start(uint3 index);

  const SharedVariable* shared_variable_at(size_t offset, size_t bytes) const;
  // The number of an asynchronous unit that has not accessed memory yet.
  uint16_t new_unit() { return static_cast<uint16_t>(threads.size() + units++); }

  Grid& grid;
  Cluster& cluster;
  const uint32_t rank;  // in its cluster
  uint32_t linear = 0;
  unsigned alive = 0;
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  Barrier barriers[16];
  std::map<uint32_t, Mbarrier> mbarriers;                          // by shared address
  std::map<unsigned, std::vector<WarpgroupCall>> warpgroup_calls;  // by warpgroup
  unsigned units = 0;
  std::vector<Event> peer_reads;  // of its shared memory, by other blocks of the cluster
  std::unique_ptr<char, ArenaDeleter> arena_owner;
  char* const arena;
  size_t arena_top = 0, shared_bytes = 0;
  std::vector<SharedVariable> variables;
  SharedShadow shadow;
};

// Blocks that run together; without clusters, one alone.
struct Cluster {
  std::vector<std::unique_ptr<Block>> blocks;
  unsigned running = 0;  // blocks
  // barrier.cluster. Phases count from 1; 0 is before the first has been completed.
  unsigned alive = 0, arrived = 0;  // threads that have not exited
  uint32_t phase = 0;
  Clock arriving;
  Lesson completed;
  std::vector<Thread*> waiting;
};

// A tile of a tensor.
struct TensorTile {
  TensorMapRequest tensor;
  int at[3];
};

// A copy by the copy engine, as it was asked for: of a run of bytes, or of a tile.
struct BulkCopy {
  Thread* issuer;
  uint32_t destination, bytes, barrier, phase;
  Site site;
  const char* source;  // null: of a tile
  TensorTile tile;
  ClockRef known;  // to the issuer
};

class Grid {
 public:
  Grid(const Launch& launch, void (*entry)(const void*), const void* parameters, size_t parameter_bytes);
  ~Grid();

  // Runs every block; the findings are in `reports` afterwards.
  void run();

  // ---- called on fibres
  void make_ready(Thread* thread);
  void wait(Thread* self, const char* what, const Site& site);
  void spin(Thread* self, const Site& site);
  void note_progress() { idle_spins_ = 0; }
  void report(const Site& site, const char* format, va_list arguments);
  [[noreturn]] void abandon();

  Launch launch;
  Config config;
  bool tracking;  // hooks are linked: initialisation is known
  bool racing;    // and races are looked for
  unsigned threads_per_block;
  uint32_t blocks_per_cluster;
  GlobalShadow global;
  std::vector<BulkCopy> copies;                     // that have not landed
  std::unordered_map<uintptr_t, Release> releases;  // by address of the flag
  const void* parameters;
  size_t parameter_bytes;

  std::string findings() const;

 private:
  static void thread_main();
  Thread* next_ready();
  void enter(Thread* thread);
  void resume_next(Thread* from, bool finished);
  void thread_finished(Thread* thread);
  void start_cluster();
  bool can_start_cluster() const;
  void report_deadlock(const char* what);
  uint64_t random();
  size_t choose(size_t count);  // one of several, by the schedule

  void (*entry_)(const void*);
  uint64_t total_clusters_, started_clusters_ = 0, random_state_;
  std::vector<uint32_t> order_;
  std::vector<std::unique_ptr<Cluster>> resident_, idle_;
  Cluster* finished_ = nullptr;
  std::deque<Thread*> ready_;
  Fiber host_;
  uint64_t idle_spins_ = 0;
  bool want_cluster_ = false, fatal_ = false;
  std::vector<std::string> messages_;
  std::vector<std::pair<Site, const char*>> seen_;
  uint64_t events_ = 0;
};

// The calling CUDA thread, with the checks of plain accesses off until the scope ends.
class EmulatorScope {
 public:
  EmulatorScope() : self(*current.thread) { current.in_kernel = false; }
  ~EmulatorScope() { current.in_kernel = true; }
  EmulatorScope(const EmulatorScope&) = delete;
  EmulatorScope& operator=(const EmulatorScope&) = delete;

  Thread& self;
};

// A finding: the grid goes on and fails at its end. fail() abandons the grid; no destructors of the fibres run.
void report(const Site& site, const char* format, ...) __attribute__((format(printf, 2, 3)));
[[noreturn]] void fail(const Site& site, const char* format, ...) __attribute__((format(printf, 2, 3)));

// The bytes behind a shared address, after checks of bounds and alignment.
char* shared_bytes(Block& block, uint32_t address, size_t bytes, size_t alignment, const Site& site);

// One access by the calling thread to shared or global memory, checked and recorded.
enum class Access : uint8_t { read, write, atomic };
void access_memory(Thread& self, const void* pointer, size_t bytes, Access kind, const Site& site);

// The mbarrier at a shared address, used by the thread; and its phase, if that is complete.
Mbarrier& mbarrier_at(Thread& self, uint32_t address, const Site& site);
void settle(Mbarrier& barrier, Block& block);

// The copy of that index lands.
void land_copy(Grid& grid, size_t choice);
// The block is about to end.
void check_copy_engine_idle(Block& block);
void check_products_complete(Block& block);
void cluster_thread_exited(Thread& thread);
void check_peers_have_read(Block& block);
// What each mbarrier lacks for which threads of the block wait.
std::string describe_mbarriers(const Block& block);

// A plain access to the thread's own stack, which asynchronous products may be using.
void watch_registers(Thread& self, uintptr_t address, size_t bytes, Access kind, const Site& site);

// Everything the participants knew, now known to all of them.
void join_clocks(const std::vector<Thread*>& participants, const ClockRef& extra);

// Lanes of exited threads no longer hold up __syncwarp; any other instruction that waits for them never ends.
void warp_lane_exited(Thread& thread);
void barrier_thread_exited(Block& block);
void check_no_copies_pending(Thread& thread);

}  // namespace culebra::simt

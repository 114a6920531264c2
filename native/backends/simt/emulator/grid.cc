// Runs a grid: starts blocks, chooses which thread goes on, notices when none can.
#include <cstdio>

#include "abi/status.h"
#include "backends/simt/emulator/global_memory.h"
#include "backends/simt/emulator/grid_barrier.h"
#include "backends/simt/emulator/state.h"

namespace culebra::simt {

__thread CurrentThread current;

Grid::Grid(const Launch& launch, void (*entry)(const void*), const void* parameters, size_t parameter_bytes)
    : launch(launch),
      config(configuration()),
      tracking(hooks_linked()),
      racing(tracking && config.races),
      threads_per_block(launch.block.x * launch.block.y * launch.block.z),
      blocks_per_cluster(launch.cluster.x * launch.cluster.y * launch.cluster.z),
      parameters(parameters),
      parameter_bytes(parameter_bytes),
      entry_(entry),
      total_clusters_(uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z / blocks_per_cluster),
      random_state_(config.seed * 0x9e3779b97f4a7c15ull | 1) {
  if (total_clusters_ * blocks_per_cluster > UINT32_MAX)
    throw DeviceError("simt: the emulation runs at most 2^32 - 1 blocks");
  if (config.schedule != Schedule::random) return;
  order_.resize(total_clusters_);
  for (uint64_t i = 0; i < total_clusters_; ++i) order_[i] = static_cast<uint32_t>(i);
  for (uint64_t i = total_clusters_; i > 1; --i) std::swap(order_[i - 1], order_[random() % i]);
}

Grid::~Grid() = default;

uint64_t Grid::random() {  // xorshift64
  random_state_ ^= random_state_ << 13;
  random_state_ ^= random_state_ >> 7;
  random_state_ ^= random_state_ << 17;
  return random_state_;
}

void Grid::start_cluster() {
  const uint64_t i = started_clusters_++;
  const uint64_t linear = config.schedule == Schedule::reverse ? total_clusters_ - 1 - i
                          : order_.empty()                     ? i
                                                               : order_[i];
  if (idle_.empty()) {
    Cluster& cluster = *idle_.emplace_back(std::make_unique<Cluster>());
    for (uint32_t rank = 0; rank < blocks_per_cluster; ++rank)
      cluster.blocks.push_back(std::make_unique<Block>(*this, cluster, rank));
  }
  resident_.push_back(std::move(idle_.back()));
  idle_.pop_back();
  Cluster& cluster = *resident_.back();
  cluster.running = blocks_per_cluster;
  cluster.alive = blocks_per_cluster * threads_per_block;
  cluster.arrived = cluster.phase = 0;
  cluster.arriving = {};
  cluster.completed = {};
  const dim3 extent = launch.cluster, clusters{launch.grid.x / extent.x, launch.grid.y / extent.y};
  const auto x = static_cast<uint32_t>(linear % clusters.x),
             y = static_cast<uint32_t>(linear / clusters.x % clusters.y),
             z = static_cast<uint32_t>(linear / clusters.x / clusters.y);
  for (auto& block : cluster.blocks) {
    const uint32_t rank = block->rank;
    block->start({x * extent.x + rank % extent.x, y * extent.y + rank / extent.x % extent.y,
                  z * extent.z + rank / extent.x / extent.y});
    for (auto& thread : block->threads) {
      thread->fiber.prepare(&Grid::thread_main);
      make_ready(thread.get());
    }
  }
}

bool Grid::can_start_cluster() const {
  return started_clusters_ < total_clusters_ &&
         (resident_.empty() || (resident_.size() + 1) * blocks_per_cluster * threads_per_block <= kMaxResidentThreads);
}

void Grid::run() {
  while (!fatal_) {
    while (can_start_cluster() && (resident_.size() * blocks_per_cluster < config.resident_blocks || want_cluster_)) {
      want_cluster_ = false;
      start_cluster();
    }
    if (resident_.empty()) break;
    finished_ = nullptr;
    if (Thread* next = next_ready()) {
      current.thread = nullptr;
      enter(next);
      Fiber::switch_to(host_, next->fiber, false);
    } else {
      report_deadlock("deadlock: no thread can run");
      fatal_ = true;
    }
    current = {};
    if (!finished_) continue;
    auto it =
        std::find_if(resident_.begin(), resident_.end(), [this](auto& cluster) { return cluster.get() == finished_; });
    idle_.push_back(std::move(*it));
    resident_.erase(it);
  }
}

void Grid::enter(Thread* thread) {
  current.thread = thread;
  current.indices = &thread->indices;
}

void Grid::thread_main() {
  Thread& self = *current.thread;
  Grid& grid = self.block->grid;
  Fiber::entered(grid.host_);
  current.in_kernel = true;
  grid.entry_(grid.parameters);
  current.in_kernel = false;
  grid.thread_finished(&self);
  __builtin_unreachable();
}

void Grid::thread_finished(Thread* thread) {
  Block& block = *thread->block;
  check_no_copies_pending(*thread);
  thread->done = true;
  --block.alive;
  note_progress();
  warp_lane_exited(*thread);
  barrier_thread_exited(block);
  cluster_thread_exited(*thread);
  if (block.alive == 0) {
    check_copy_engine_idle(block);
    check_products_complete(block);
    check_peers_have_read(block);
    if (--block.cluster.running == 0) {
      finished_ = &block.cluster;
      Fiber::switch_to(thread->fiber, host_, true);
    }
  }
  resume_next(thread, true);
}

size_t Grid::choose(size_t count) {
  return config.schedule == Schedule::in_order  ? 0
         : config.schedule == Schedule::reverse ? count - 1
                                                : random() % count;
}

Thread* Grid::next_ready() {
  while (ready_.empty()) {
    if (copies.empty()) return nullptr;
    land_copy(*this, choose(copies.size()));
  }
  size_t i = choose(ready_.size());
  if (config.schedule == Schedule::random) {
    std::swap(ready_[i], ready_.back());
    i = ready_.size() - 1;
  }
  Thread* next = ready_[i];
  i == 0 ? ready_.pop_front() : ready_.pop_back();
  return next;
}

void Grid::resume_next(Thread* from, bool finished) {
  Thread* next = next_ready();
  if (!next) {
    report_deadlock("deadlock: no thread can run");
    abandon();
  }
  if (next == from) return;
  enter(next);
  Fiber::switch_to(from->fiber, next->fiber, finished);
}

void Grid::make_ready(Thread* thread) {
  thread->waiting_for = nullptr;
  ready_.push_back(thread);
}

void Grid::wait(Thread* self, const char* what, const Site& site) {
  self->waiting_for = what;
  self->site = site;
  resume_next(self, false);
}

void Grid::spin(Thread* self, const Site& site) {
  self->site = site;
  // Behind everybody else, also where the schedule takes the newest first: a thread that polls must not starve the one it waits for.
  config.schedule == Schedule::reverse ? ready_.push_front(self) : ready_.push_back(self);
  if (++idle_spins_ > config.max_idle_spins) {
    report_deadlock("livelock: threads poll memory that nobody writes");
    abandon();
  }
  // Everybody who can run has been polling for a while: copies land, and on a device more blocks would be running beside these.
  if (idle_spins_ % (4 * ready_.size()) == 0) {
    if (!copies.empty()) {
      land_copy(*this, choose(copies.size()));
    } else if (can_start_cluster() && resident_.size() * blocks_per_cluster < config.max_resident_blocks) {
      want_cluster_ = true;
      Fiber::switch_to(self->fiber, host_, false);
      return;
    }
  }
  resume_next(self, false);
}

void Grid::abandon() {
  fatal_ = true;
  Thread* self = current.thread;
  Fiber::switch_to(self->fiber, host_, true);
  __builtin_unreachable();
}

namespace {

// The barrier's word of the grid that runs on this thread; null until it is used.
class GridArrivals {
 public:
  ~GridArrivals() { reset(); }
  unsigned* word() {
    if (!word_) {
      word_ = std::make_unique<unsigned>(0);
      register_global(word_.get(), sizeof(unsigned));
      mark_initialized(word_.get(), sizeof(unsigned));
    }
    return word_.get();
  }
  void reset() {
    if (word_) unregister_global(word_.get());
    word_ = nullptr;
  }

 private:
  std::unique_ptr<unsigned> word_;
};
thread_local GridArrivals arrivals;

}  // namespace

unsigned* grid_arrivals(Here here) {
  EmulatorScope scope;
  const Grid& grid = scope.self.block->grid;
  const uint64_t blocks = uint64_t{grid.launch.grid.x} * grid.launch.grid.y * grid.launch.grid.z;
  if (blocks > grid.config.max_resident_blocks)
    fail(Site(Op::atomic, here), "a barrier of %llu blocks, of which only %u run at once", static_cast<unsigned long long>(blocks),
         grid.config.max_resident_blocks);
  return arrivals.word();
}

void check_launch(const Launch& launch) {
  const auto& [grid, block, bytes, here, cluster] = launch;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const uint64_t blocks = uint64_t{cluster.x} * cluster.y * cluster.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 || bytes > kSharedLimitBytes || blocks == 0 ||
      blocks > kMaxClusterBlocks || grid.x % cluster.x || grid.y % cluster.y || grid.z % cluster.z) {
    char text[320];
    std::snprintf(text, sizeof text,
                  "simt: invalid launch at %s: grid (%u, %u, %u), block (%u, %u, %u), cluster (%u, %u, %u), %zu bytes "
                  "of dynamic shared memory (limit %zu)",
                  Site(Op::launch, here).where(), grid.x, grid.y, grid.z, block.x, block.y, block.z, cluster.x,
                  cluster.y, cluster.z, bytes, kSharedLimitBytes);
    throw DeviceError(text);
  }
}

void run_grid(const Launch& launch, void (*entry)(const void*), const void* parameters, size_t parameter_bytes) {
  check_launch(launch);
  const struct Reset {
    ~Reset() { arrivals.reset(); }
  } when_done;
  Grid grid(launch, entry, parameters, parameter_bytes);
  grid.run();
  if (std::string findings = grid.findings(); !findings.empty()) throw DeviceError(findings);
}

}  // namespace culebra::simt

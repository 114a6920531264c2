// Block-wide and named barriers.
#include "backends/simt/emulator/state.h"

namespace culebra::simt {
namespace {

void release(Barrier& barrier, Grid& grid, const Thread* self) {
  if (grid.racing && !barrier.waiting.empty()) join_clocks(barrier.waiting, barrier.published);
  const BarrierVote vote{barrier.count, barrier.count != 0, barrier.count == static_cast<int>(barrier.waiting.size())};
  for (Thread* thread : barrier.waiting) {
    thread->vote = vote;
    if (thread != self) grid.make_ready(thread);
  }
  barrier.waiting.clear();
  barrier.published = nullptr;
  barrier.arrived = 0;
  barrier.count = 0;
}

}  // namespace

BarrierVote block_barrier(BarrierKind kind, int predicate, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  Block& block = *self.block;
  static constexpr Op kOps[] = {Op::syncthreads, Op::syncthreads_count, Op::syncthreads_and, Op::syncthreads_or};
  const Site site(kOps[static_cast<int>(kind)], here);
  Barrier& barrier = block.barriers[0];
  const bool strict = block.grid.config.strict_convergence;
  if (barrier.arrived &&
      (!barrier.whole_block || (strict ? !barrier.site.same_place(site) : barrier.site.op() != site.op())))
    fail(site, "divergent barrier: %u threads of the block wait in %s", barrier.arrived, barrier.site.describe());
  self.site = site;
  barrier.whole_block = true;
  barrier.site = site;
  barrier.count += predicate != 0;
  barrier.waiting.push_back(&self);
  if (++barrier.arrived == block.alive) {
    release(barrier, block.grid, &self);
  } else {
    block.grid.wait(&self, "the rest of the block", site);
  }
  return self.vote;
}

void named_barrier(int id, int threads, bool wait, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  Block& block = *self.block;
  const Site site(wait ? Op::named_barrier_sync : Op::named_barrier_arrive, here);
  self.site = site;
  if (id < 0 || id > 15) fail(site, "barrier %d does not exist: a block has 0..15", id);
  if (threads <= 0 || threads % 32)
    fail(site, "barrier %d is used with %d threads, which is not a positive multiple of 32", id, threads);
  Barrier& barrier = block.barriers[id];
  if (barrier.arrived && (barrier.whole_block || barrier.expected != static_cast<unsigned>(threads)))
    fail(site, "barrier %d is used with %d threads while %u wait in %s with %u", id, threads, barrier.arrived,
         barrier.site.describe(), barrier.whole_block ? block.grid.threads_per_block : barrier.expected);
  barrier.whole_block = false;
  barrier.expected = static_cast<unsigned>(threads);
  barrier.site = site;
  if (wait) {
    barrier.waiting.push_back(&self);
  } else if (block.grid.racing) {
    Clock published = barrier.published ? *barrier.published : Clock{};
    merge(published, block.linear, *self.known, block.linear);
    published.threads[self.linear] = self.epoch++;
    barrier.published = std::make_shared<const Clock>(std::move(published));
  }
  if (++barrier.arrived == barrier.expected) {
    release(barrier, block.grid, &self);
  } else if (wait) {
    block.grid.wait(&self, "the other threads of the named barrier", site);
  }
}

void barrier_thread_exited(Block& block) {
  Barrier& barrier = block.barriers[0];
  if (barrier.arrived && barrier.whole_block && barrier.arrived == block.alive) release(barrier, block.grid, nullptr);
}

void Lesson::learn(Thread& thread) {
  if (!clock_) return;
  if (thread.known != before_) {
    Clock clock = *thread.known;
    merge(clock, thread.block->linear, *clock_, block_);
    before_ = thread.known;
    after_ = std::make_shared<const Clock>(std::move(clock));
  }
  thread.known = after_;
}

void join_clocks(const std::vector<Thread*>& participants, const ClockRef& extra) {
  const uint32_t block = participants[0]->block->linear;
  auto joined = std::make_shared<Clock>(*participants[0]->known);
  const Clock* merged = participants[0]->known.get();
  for (Thread* thread : participants) {
    if (thread->known.get() != merged) merge(*joined, block, *thread->known, block);  // mostly they share one clock
    merged = thread->known.get();
  }
  if (extra) merge(*joined, block, *extra, block);
  for (Thread* thread : participants) {
    joined->threads[thread->linear] = thread->epoch++;
    thread->known = joined;
  }
}

}  // namespace culebra::simt

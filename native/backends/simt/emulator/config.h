// How the emulation schedules and what it checks. One setting for the process, read when a grid starts.
#pragma once

#include <cstdint>

namespace culebra::simt {

enum class Schedule { in_order, reverse, random };

struct Config {
  Schedule schedule = Schedule::in_order;  // of threads, and of blocks
  uint64_t seed = 1;                       // of the random schedule; each grid draws from it anew
  unsigned resident_blocks = 1;            // blocks that run together from the start
  unsigned max_resident_blocks = 64;       // more are started, up to this many, when the running ones wait for memory
  unsigned max_reports = 5;                // distinct findings kept per grid
  uint64_t max_idle_spins = 5'000'000;     // polls without any progress before the grid is a livelock
  bool poison = true;              // shared memory starts as 0xff bytes (NaN), so do destinations of unfinished copies
  bool races = true;               // where kernels are compiled with the hooks
  bool strict_convergence = true;  // a barrier or warp collective must be one place in the source for all its threads
};

// Defaults come from CULEBRA_SIMT_SCHEDULE (in_order, reverse, random), CULEBRA_SIMT_SEED, CULEBRA_SIMT_RESIDENT_BLOCKS,
// CULEBRA_SIMT_RACES (0, 1); a malformed value is ignored.
Config configuration();
void configure(const Config& config);

// Whether kernels report their plain loads and stores (the build has CULEBRA_SIMT_HOOKS on): without it there are no checks for
// races, uninitialised reads and bounds of plain accesses; those of emulated instructions remain.
bool hooks_linked();

}  // namespace culebra::simt

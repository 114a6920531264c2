// Warp-level instructions: all lanes of the mask meet, the last to arrive computes for all. Lanes meet only at one place in the
// source: .aligned instructions demand it, and by our stricter rule (strict_convergence) so do all others.
#include <bit>

#include "backends/simt/emulator/warp.h"

namespace culebra::simt {
namespace {

void release(Meeting& meeting, Warp& warp, const Thread* self) {
  const uint32_t mask = meeting.mask;
  meeting.arrived = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if ((mask >> lane & 1) && warp.lanes[lane] != self) warp.lanes[lane]->block->grid.make_ready(warp.lanes[lane]);
}

void order_lanes(const Warp& warp, uint32_t mask) {
  std::vector<Thread*> lanes;
  for (uint32_t rest = mask; rest; rest &= rest - 1) lanes.push_back(warp.lanes[std::countr_zero(rest)]);
  if (lanes[0]->block->grid.racing) join_clocks(lanes, nullptr);
}

}  // namespace

void meet(Thread& self, uint32_t mask, bool aligned, void* argument, void (*compute)(Meeting&, Block&),
          const Site& site) {
  Grid& grid = self.block->grid;
  Warp& warp = self.block->warps[self.warp];
  self.site = site;
  if (!(mask >> self.lane & 1)) fail(site, "lane %u calls with mask 0x%08x, which does not name it", self.lane, mask);
  if (mask & ~warp.exists)
    fail(site, "mask 0x%08x names lanes that do not exist: the warp has lanes 0x%08x", mask, warp.exists);
  if (site.op() == Op::syncwarp) mask &= ~warp.exited;  // exited lanes count as arrived
  if (mask & warp.exited) fail(site, "mask 0x%08x names lanes 0x%08x, which have exited", mask, mask & warp.exited);

  Meeting* meeting = nullptr;
  for (Meeting& other : warp.meetings) {
    if (!other.arrived) continue;
    const bool same = other.mask == mask && other.site.op() == site.op() &&
                      (other.site.same_place(site) || !(aligned || grid.config.strict_convergence));
    if (same) {
      meeting = &other;
    } else if ((other.arrived & mask) &&
               (other.mask >> self.lane & 1)) {  // lanes that this one needs wait for this one elsewhere
      fail(site, "divergent warp: lane %u is here with mask 0x%08x while lanes 0x%08x wait in %s with mask 0x%08x",
           self.lane, mask, other.arrived, other.site.describe(), other.mask);
    }
  }
  if (!meeting) {
    for (Meeting& other : warp.meetings)
      if (!other.arrived) meeting = &other;  // 32 slots: each has at least one lane of its own
    meeting->mask = mask;
    meeting->site = site;
  }
  meeting->arguments[self.lane] = argument;
  meeting->arrived |= 1u << self.lane;
  if (meeting->arrived != meeting->mask) {
    grid.wait(&self, "the other lanes of the mask", site);
    return;
  }
  if (compute) compute(*meeting, *self.block);
  if (site.op() == Op::syncwarp) order_lanes(warp, meeting->mask);
  release(*meeting, warp, &self);
}

void warp_lane_exited(Thread& thread) {
  Warp& warp = thread.block->warps[thread.warp];
  const uint32_t bit = 1u << thread.lane;
  warp.exited |= bit;
  for (Meeting& meeting : warp.meetings) {
    if (!meeting.arrived || !(meeting.mask & bit)) continue;
    if (meeting.site.op() != Op::syncwarp)
      fail(meeting.site, "lanes 0x%08x wait here for lane %u, which exits (mask 0x%08x)", meeting.arrived, thread.lane,
           meeting.mask);
    meeting.mask &= ~bit;
    if (meeting.arrived != meeting.mask) continue;
    order_lanes(warp, meeting.mask);
    release(meeting, warp, nullptr);
  }
}

void sync_warp(uint32_t mask, Here here) {
  EmulatorScope scope;
  meet(scope.self, mask, false, nullptr, nullptr, Site(Op::syncwarp, here));
}

namespace {

template <class F>
void for_lanes(uint32_t mask, F&& f) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) f(std::countr_zero(rest));
}

struct ShuffleArgument {
  ShuffleMode mode;
  uint64_t value, result;
  int lane, width;
};

// PTX shfl: the segment of `width` lanes bounds the source; an out-of-range source gives the lane its own value.
void compute_shuffle(Meeting& meeting, Block&) {
  for_lanes(meeting.mask, [&](int lane) {
    auto& own = *static_cast<ShuffleArgument*>(meeting.arguments[lane]);
    const int begin = lane & ~(own.width - 1), end = begin + own.width;
    int source = lane;
    switch (own.mode) {
      case ShuffleMode::index: source = begin + (own.lane & (own.width - 1)); break;
      case ShuffleMode::up: source = lane - own.lane < begin ? lane : lane - own.lane; break;
      case ShuffleMode::down: source = lane + own.lane >= end ? lane : lane + own.lane; break;
      case ShuffleMode::butterfly: source = (lane ^ own.lane) >= end ? lane : lane ^ own.lane; break;
    }
    if (meeting.mask >> source & 1) {
      own.result = static_cast<ShuffleArgument*>(meeting.arguments[source])->value;
    } else {
      report(meeting.site, "lane %d reads lane %d, which is not in mask 0x%08x: the value is undefined", lane, source,
             meeting.mask);
      own.result = 0xdeadbeefdeadbeefull;
    }
  });
}

struct VoteArgument {
  uint64_t value;
  uint32_t result;
  ReduceMode mode;
};
VoteArgument& vote_argument(Meeting& meeting, int lane) { return *static_cast<VoteArgument*>(meeting.arguments[lane]); }

uint32_t combine(ReduceMode mode, uint32_t a, uint32_t b) {
  const auto sa = static_cast<int32_t>(a), sb = static_cast<int32_t>(b);
  switch (mode) {
    case ReduceMode::add: return a + b;
    case ReduceMode::min_signed: return sa < sb ? a : b;
    case ReduceMode::max_signed: return sa > sb ? a : b;
    case ReduceMode::min_unsigned: return a < b ? a : b;
    case ReduceMode::max_unsigned: return a > b ? a : b;
    case ReduceMode::bit_and: return a & b;
    case ReduceMode::bit_or: return a | b;
    case ReduceMode::bit_xor: return a ^ b;
  }
  return 0;
}

uint32_t vote(uint32_t mask, VoteArgument argument, Op op, Here here, void (*compute)(Meeting&, Block&)) {
  EmulatorScope scope;
  meet(scope.self, mask, false, &argument, compute, Site(op, here));
  return argument.result;
}

}  // namespace

uint64_t shuffle(ShuffleMode mode, uint32_t mask, uint64_t value, int lane, int width, Here here) {
  EmulatorScope scope;
  static constexpr Op kOps[] = {Op::shuffle_index, Op::shuffle_up, Op::shuffle_down, Op::shuffle_xor};
  const Site site(kOps[static_cast<int>(mode)], here);
  if (width < 1 || width > 32 || (width & (width - 1))) fail(site, "width %d is not a power of two up to 32", width);
  if (mode != ShuffleMode::index && (lane < 0 || lane > 31)) fail(site, "lane offset %d is outside 0..31", lane);
  ShuffleArgument argument{mode, value, 0, lane, width};
  meet(scope.self, mask, false, &argument, compute_shuffle, site);
  return argument.result;
}

uint32_t ballot(uint32_t mask, bool predicate, Here here) {
  return vote(mask, {predicate, 0, {}}, Op::vote, here, [](Meeting& meeting, Block&) {
    uint32_t result = 0;
    for_lanes(meeting.mask,
              [&](int lane) { result |= static_cast<uint32_t>(vote_argument(meeting, lane).value) << lane; });
    for_lanes(meeting.mask, [&](int lane) { vote_argument(meeting, lane).result = result; });
  });
}

uint32_t match_any(uint32_t mask, uint64_t value, Here here) {
  return vote(mask, {value, 0, {}}, Op::match_any, here, [](Meeting& meeting, Block&) {
    for_lanes(meeting.mask, [&](int lane) {
      VoteArgument& own = vote_argument(meeting, lane);
      for_lanes(meeting.mask, [&](int other) {
        own.result |= static_cast<uint32_t>(vote_argument(meeting, other).value == own.value) << other;
      });
    });
  });
}

uint32_t match_all(uint32_t mask, uint64_t value, int* all_equal, Here here) {
  const uint32_t result = vote(mask, {value, 0, {}}, Op::match_all, here, [](Meeting& meeting, Block&) {
    const uint64_t first = vote_argument(meeting, std::countr_zero(meeting.mask)).value;
    bool equal = true;
    for_lanes(meeting.mask, [&](int lane) { equal &= vote_argument(meeting, lane).value == first; });
    for_lanes(meeting.mask, [&](int lane) { vote_argument(meeting, lane).result = equal ? meeting.mask : 0; });
  });
  *all_equal = result != 0;
  return result;
}

uint32_t reduce(ReduceMode mode, uint32_t mask, uint32_t value, Here here) {
  return vote(mask, {value, 0, mode}, Op::reduce, here, [](Meeting& meeting, Block&) {
    const int first = std::countr_zero(meeting.mask);
    const ReduceMode mode = vote_argument(meeting, first).mode;
    uint32_t result = static_cast<uint32_t>(vote_argument(meeting, first).value);
    for_lanes(meeting.mask & (meeting.mask - 1), [&](int lane) {
      result = combine(mode, result, static_cast<uint32_t>(vote_argument(meeting, lane).value));
    });
    for_lanes(meeting.mask, [&](int lane) { vote_argument(meeting, lane).result = result; });
  });
}

uint32_t active_mask(Here here) {
  EmulatorScope scope;
  report(Site(Op::activemask, here),
         "the set of active lanes depends on the compiler and the schedule; pass the mask that the algorithm means");
  return 1u << scope.self.lane;
}

}  // namespace culebra::simt

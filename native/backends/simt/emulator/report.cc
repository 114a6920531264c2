// Findings: what they say, and that one place in a kernel does not say it a thousand times.
#include <algorithm>
#include <cstdio>

#include "backends/simt/emulator/state.h"

namespace culebra::simt {

void Grid::report(const Site& site, const char* format, va_list arguments) {
  ++events_;
  const bool known = std::any_of(seen_.begin(), seen_.end(),
                                 [&](auto& seen) { return seen.second == format && seen.first.same_place(site); });
  if (known || messages_.size() >= config.max_reports) return;
  seen_.emplace_back(site, format);
  char text[1024];
  std::vsnprintf(text, sizeof text, format, arguments);
  std::string message = std::string(site.describe()) + ": " + text;
  if (const Thread* thread = current.thread) {
    const ThreadIndices& i = thread->indices;
    std::snprintf(text, sizeof text, " [block (%u, %u, %u), thread (%u, %u, %u) = warp %u lane %u", i.block.x,
                  i.block.y, i.block.z, i.thread.x, i.thread.y, i.thread.z, thread->warp, thread->lane);
    message += text;
    if (site.hooked() && thread->site.op() != Op::none) message += std::string(", after ") + thread->site.describe();
    message += "]";
  }
  messages_.push_back(message);
}

std::string Grid::findings() const {
  if (messages_.empty()) return {};
  std::string text = std::string("simt: kernel launched at ") + Site(Op::launch, launch.here).where() + ":";
  for (const std::string& message : messages_) text += "\n  " + message;
  if (events_ > messages_.size()) text += "\n  (" + std::to_string(events_) + " findings in all)";
  return text;
}

void report(const Site& site, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  current.thread->block->grid.report(site, format, arguments);
  va_end(arguments);
}

void fail(const Site& site, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Grid& grid = current.thread->block->grid;
  grid.report(site, format, arguments);
  va_end(arguments);
  grid.abandon();
}

namespace {

std::string describe_threads(const Block& block) {
  // Threads that wait for the same at the same place are one line.
  struct Group {
    Site site;
    const char* waiting_for;
    unsigned threads, first, last;
  };
  std::vector<Group> groups;
  for (auto& thread : block.threads) {
    if (thread->done) continue;
    auto same = [&](const Group& g) { return g.site.same_place(thread->site) && g.waiting_for == thread->waiting_for; };
    if (auto it = std::find_if(groups.begin(), groups.end(), same); it != groups.end()) {
      ++it->threads;
      it->last = thread->linear;
    } else {
      groups.push_back({thread->site, thread->waiting_for, 1, thread->linear, thread->linear});
    }
  }
  const uint3 index = block.threads[0]->indices.block;
  std::string text = "\n    block (" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
                     std::to_string(index.z) + "): " + std::to_string(block.alive) + " of " +
                     std::to_string(block.threads.size()) + " threads have not exited";
  for (const Group& g : groups) {
    text += "\n      " + std::to_string(g.threads) + " (" + std::to_string(g.first) + ".." + std::to_string(g.last) +
            ") " + (g.waiting_for ? std::string("wait for ") + g.waiting_for : "poll") + " in " + g.site.describe();
  }
  return text + describe_mbarriers(block);
}

}  // namespace

void Grid::report_deadlock(const char* what) {
  std::string text = what;
  for (auto& cluster : resident_)
    for (auto& block : cluster->blocks)
      if (block->alive) text += describe_threads(*block);
  if (started_clusters_ < total_clusters_)
    text += "\n    " + std::to_string((total_clusters_ - started_clusters_) * blocks_per_cluster) +
            " blocks have not started (max_resident_blocks is " + std::to_string(config.max_resident_blocks) + ")";
  ++events_;
  messages_.push_back(std::move(text));
}

}  // namespace culebra::simt

// Clusters: their barrier, and the shared memory of a peer.
#include <cstring>

#include "backends/simt/emulator/warp.h"

namespace culebra::simt {
namespace {

// A peer's address carries the number of its block above the bits of an offset.
constexpr int kRankShift = 24;

void settle(Cluster& cluster, Grid& grid) {
  if (cluster.alive == 0 || cluster.arrived != cluster.alive) return;
  ++cluster.phase;
  cluster.arrived = 0;
  if (grid.racing) cluster.completed.set(cluster.blocks[0]->linear, cluster.arriving);
  for (Thread* thread : cluster.waiting) grid.make_ready(thread);
  cluster.waiting.clear();
}

// One warp-level instruction of all lanes that have not exited.
void meet_warp(Thread& self, const Site& site) {
  const Warp& warp = self.block->warps[self.warp];
  meet(self, warp.exists & ~warp.exited, true, nullptr, nullptr, site);
}

}  // namespace

uint32_t cluster_rank() { return current.thread->block->rank; }
uint32_t cluster_size() { return current.thread->block->grid.blocks_per_cluster; }

void cluster_arrive(Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  Cluster& cluster = self.block->cluster;
  const Site site(Op::cluster_arrive, here);
  meet_warp(self, site);
  if (self.cluster_phase) fail(site, "the thread arrives a second time without waiting");
  self.cluster_phase = cluster.phase + 1;
  ++cluster.arrived;
  if (self.block->grid.racing) {
    const uint32_t first = cluster.blocks[0]->linear;
    merge(cluster.arriving, first, *snapshot(self), self.block->linear);
  }
  settle(cluster, self.block->grid);
}

void cluster_wait(Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  Cluster& cluster = self.block->cluster;
  const Site site(Op::cluster_wait, here);
  meet_warp(self, site);
  if (!self.cluster_phase) fail(site, "the thread waits without having arrived");
  if (cluster.phase < self.cluster_phase) {
    cluster.waiting.push_back(&self);
    self.block->grid.wait(&self, "the other threads of the cluster", site);
  }
  self.cluster_phase = 0;
  if (self.block->grid.racing) cluster.completed.learn(self);
}

void cluster_thread_exited(Thread& thread) {
  Cluster& cluster = thread.block->cluster;
  --cluster.alive;
  if (thread.cluster_phase > cluster.phase) --cluster.arrived;
  settle(cluster, thread.block->grid);
}

uint32_t cluster_address(uint32_t address, uint32_t rank, Here here) {
  EmulatorScope scope;
  const Block& block = *scope.self.block;
  const Site site(Op::cluster_address, here);
  if (rank >= block.grid.blocks_per_cluster)
    fail(site, "block %u of a cluster of %u", rank, block.grid.blocks_per_cluster);
  if (address >> kRankShift) fail(site, "0x%x is not an address in this block's shared memory", address);
  return address | (rank + 1) << kRankShift;
}

void read_cluster(void* value, uint32_t address, size_t bytes, Here here) {
  EmulatorScope scope;
  Thread& self = scope.self;
  const Site site(Op::read_cluster, here);
  self.site = site;
  const uint32_t rank = (address >> kRankShift) - 1, offset = address & ((1u << kRankShift) - 1);
  if (address >> kRankShift == 0 || rank >= self.block->grid.blocks_per_cluster)
    fail(site, "0x%x is not from cluster_address", address);
  Block& peer = *self.block->cluster.blocks[rank];
  if (peer.alive == 0) fail(site, "block %u of the cluster has exited: its shared memory is gone", rank);
  const char* const source = shared_bytes(peer, offset, bytes, bytes, site);
  if (peer.grid.tracking) peer.shadow.access(actor(self), offset, bytes, Access::read, site);
  if (peer.grid.racing && &peer != self.block) {
    const Event read{site, self.block->linear, self.epoch, static_cast<uint16_t>(self.linear), 0};
    if (peer.peer_reads.empty() || !(peer.peer_reads.back() == read)) peer.peer_reads.push_back(read);
  }
  std::memcpy(value, source, bytes);
}

void check_peers_have_read(Block& block) {
  if (block.peer_reads.empty()) return;
  // The block lives as long as any of its threads: what one of them knows is enough.
  Clock known;
  for (const auto& thread : block.threads) merge(known, block.linear, *thread->known, block.linear);
  for (const Event& read : block.peer_reads) {
    if (knows(known, block.linear, read.block, read.thread, read.epoch)) continue;
    report(read.site, "block #%u may exit before thread %u of block #%u has read its shared memory", block.linear,
           read.thread, read.block);
    return;
  }
}

}  // namespace culebra::simt

// Thread-block clusters: blocks that run at the same time, wait for one another and read each other's shared memory; and the start of a
// kernel before its predecessor has ended. sm_90 and up. LaunchShape (launch.h) asks for both.
//
//   store partial sums to shared memory;  cluster_sync();                       // all blocks' sums are there
//   float4 v = load_cluster<float4>(cluster_address(shared_address(sums), r));  // block r's, in the order of r: deterministic
//   cluster_sync();                                                             // nobody leaves before it has been read
//
// Blocks are numbered by blockIdx modulo the cluster's extent, x fastest.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

inline void cluster_sync(Here here = Here::current()) {
  cluster_arrive(here);
  cluster_wait(here);
}
template <class V>
V load_cluster(uint32_t address, Here here = Here::current()) {
  static_assert(sizeof(V) == 16);
  V value;
  read_cluster(&value, address, sizeof value, here);
  return value;
}

#elif CUL_HAS_SM90

CUL_DEVICE_FN uint32_t cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
CUL_DEVICE_FN uint32_t cluster_size() {
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

// By all threads of all blocks of the cluster, each warp as one. Arrivals release, waits acquire.
CUL_DEVICE_FN void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
CUL_DEVICE_FN void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
CUL_DEVICE_FN void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

// Where block `rank` of the cluster has what this block has at `address`: for load_cluster alone.
CUL_DEVICE_FN uint32_t cluster_address(uint32_t address, uint32_t rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
template <class V>
CUL_DEVICE_FN V load_cluster(uint32_t address) {
  static_assert(sizeof(V) == 16);
  uint32_t words[4];
  asm volatile("ld.shared::cluster.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(address)
               : "memory");
  V value;
  __builtin_memcpy(&value, words, sizeof value);
  return value;
}

// In a kernel that was launched with LaunchShape::overlap: nothing that earlier kernels of the stream write is read, and nothing that
// they read is written, before this returns.
CUL_DEVICE_FN void wait_for_previous_kernel() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// The next kernel may start once every block has called this or exited; what this one writes it sees only after its own wait.
CUL_DEVICE_FN void start_next_kernel() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

#endif

}  // namespace culebra::CUL_DEVICE_NS

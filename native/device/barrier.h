// Barriers of a block: CUDA's __syncthreads family, and named barriers for part of the block's warps.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

inline void __syncthreads(Here here = Here::current()) { block_barrier(BarrierKind::sync, 0, here); }
inline int __syncthreads_count(int predicate, Here here = Here::current()) {
  return block_barrier(BarrierKind::count, predicate, here).count;
}
inline int __syncthreads_and(int predicate, Here here = Here::current()) {
  return block_barrier(BarrierKind::all, predicate, here).all;
}
inline int __syncthreads_or(int predicate, Here here = Here::current()) {
  return block_barrier(BarrierKind::any, predicate, here).any;
}

// Barrier `id` (1..15; 0 is __syncthreads) for `threads` threads, a multiple of 32: sync waits for all of them, arrive only counts.
inline void named_barrier_sync(int id, int threads, Here here = Here::current()) {
  named_barrier(id, threads, true, here);
}
inline void named_barrier_arrive(int id, int threads, Here here = Here::current()) {
  named_barrier(id, threads, false, here);
}

#else

CUL_DEVICE_FN void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
CUL_DEVICE_FN void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif

}  // namespace culebra::CUL_DEVICE_NS

// A launch whose blocks all run at once, and their barrier, in two halves: between them a block does what needs nothing of the others.
//
//   launch_together(kernel, dim3(blocks), dim3(256), shared_bytes, stream, ...);   // refused where the blocks do not fit the device
//   data[i] = x;
//   const GridToken token = grid_arrive();
//   ...
//   grid_wait(token);                          // what every block wrote before it arrived is there
//
// All threads of a block call both. No memory is asked for: the driver gives such a launch a word that is zero.
#pragma once

#include "device/atomic.h"
#include "device/barrier.h"
#include "device/launch.h"

#if CUL_EMULATED
#include "backends/simt/emulator/grid_barrier.h"
#else
#include <cooperative_groups.h>

#include <utility>
#endif

namespace culebra::CUL_DEVICE_NS {

using GridToken = unsigned;

#if CUL_EMULATED

template <class... P, class... A>
void launch_together(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, LaunchOn stream, A&&... arguments) {
  launch(kernel, LaunchShape{grid, block, shared_bytes}, stream, std::forward<A>(arguments)...);
}

inline GridToken grid_arrive(Here here = Here::current()) {
  __syncthreads(here);
  if (threadIdx.x != 0 || threadIdx.y != 0 || threadIdx.z != 0) return 0;
  const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
  __threadfence();
  const unsigned before = atomicAdd(grid_arrivals(here), 1u, here);
  return (before / blocks + 1) * blocks;  // arrivals when this round is complete
}
inline void grid_wait(GridToken token, Here here = Here::current()) {
  if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0)
    spin_until([&] { return ld_acquire(grid_arrivals(here), here) >= token; });
  __syncthreads(here);
}

#else

template <class... P, class... A>
void launch_together(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, LaunchOn stream, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: the kernel takes another number of arguments");
  const LaunchShape shape{grid, block, shared_bytes};
  detail::check(detail::allow_shared(reinterpret_cast<const void*>(kernel), shared_bytes), "shared memory", shape);
  cudaLaunchAttribute cooperative{};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = 1;
  detail::check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...), "cooperative launch", shape);
}

CUL_DEVICE_FN GridToken grid_arrive() { return cooperative_groups::this_grid().barrier_arrive(); }
CUL_DEVICE_FN void grid_wait(GridToken token) { cooperative_groups::this_grid().barrier_wait(std::move(token)); }

#endif

}  // namespace culebra::CUL_DEVICE_NS

// The one way to launch a kernel.
//
//   launch(kernel<64>, dim3(blocks), dim3(128), shared_bytes, stream, x, y, n);
//   launch(kernel<64>, LaunchShape{.grid = blocks, .block = 128, .shared_bytes = bytes, .cluster = 4}, stream, x, y, n);
//
// Arguments are converted to the kernel's parameter types and copied at the call. Throws culebra::DeviceError when the launch is
// refused. On cuda, what goes wrong later is the stream's; on simt the grid runs when the queue is synchronized, and a fault of the
// kernel throws DeviceError there, with the findings.
#pragma once

#include <type_traits>
#include <utility>

#include "abi/status.h"
#include "device/portable.h"

#if CUL_EMULATED
#include <memory>
#include <tuple>

#include "backends/simt/emulator/queue.h"
#else
#include <cuda_runtime.h>

#include <mutex>
#include <string>
#include <unordered_map>
#endif

namespace culebra::CUL_DEVICE_NS {

// cluster and overlap need compute capability 9.0.
struct LaunchShape {
  dim3 grid = 1, block = 1;
  size_t shared_bytes = 0;
  dim3 cluster = 1;      // the grid is a multiple of it; up to 8 blocks
  bool overlap = false;  // may start before the stream's previous kernel has ended: wait_for_previous_kernel (cluster.h)
};

#if CUL_EMULATED

using NativeStream = Queue*;

namespace detail {

// The queue, and where launch() was called: the default argument is evaluated there.
struct LaunchTarget {
  LaunchTarget(NativeStream queue, Here here = Here::current()) : queue(queue), here(here) {}
  NativeStream queue;
  Here here;
};

template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> parameters;

  static void run(const void* call) {
    const auto& self = *static_cast<const Call*>(call);
    std::apply(self.kernel, self.parameters);
  }
};

}  // namespace detail
using LaunchOn = detail::LaunchTarget;

template <class... P, class... A>
void launch(void (*kernel)(P...), const LaunchShape& shape, LaunchOn target, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: the kernel takes another number of arguments");
  static_assert((std::is_trivially_copyable_v<P> && ...),
                "launch: kernel parameters are copied bytewise to the device");
  const Launch request{shape.grid, shape.block, shape.shared_bytes, target.here, shape.cluster};
  check_launch(request);
  auto call = std::make_shared<detail::Call<P...>>(detail::Call<P...>{kernel, {static_cast<P>(arguments)...}});
  target.queue->enqueue([request, call] { run_grid(request, &detail::Call<P...>::run, call.get(), sizeof(*call)); });
}

#else

using NativeStream = cudaStream_t;
using LaunchOn = NativeStream;

namespace detail {

inline std::string text(dim3 extent) {
  return std::to_string(extent.x) + " x " + std::to_string(extent.y) + " x " + std::to_string(extent.z);
}

inline void check(cudaError_t error, const char* what, const LaunchShape& shape) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  throw DeviceError("cuda: " + std::string(what) + ": " + cudaGetErrorString(error) + " (grid " + text(shape.grid) +
                    ", block " + text(shape.block) + ", cluster " + text(shape.cluster) + ", " +
                    std::to_string(shape.shared_bytes) + " bytes of dynamic shared memory)");
}

// Above 48 KB a kernel must be told, once per device: the highest figure so far is kept for each.
inline cudaError_t allow_shared(const void* kernel, size_t bytes) {
  if (bytes <= 48 << 10) return cudaSuccess;
  struct Key {
    const void* kernel;
    int device;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const {
      return std::hash<const void*>()(key.kernel) * 31 + static_cast<size_t>(key.device);
    }
  };
  static std::mutex mutex;
  static std::unordered_map<Key, size_t, Hash> allowed;
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  const std::lock_guard lock(mutex);
  size_t& limit = allowed[{kernel, device}];
  if (bytes <= limit) return cudaSuccess;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error == cudaSuccess) limit = bytes;
  return error;
}

}  // namespace detail

template <class... P, class... A>
void launch(void (*kernel)(P...), const LaunchShape& shape, LaunchOn stream, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: the kernel takes another number of arguments");
  detail::check(detail::allow_shared(reinterpret_cast<const void*>(kernel), shape.shared_bytes), "shared memory", shape);
  cudaLaunchAttribute attributes[2]{};
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (shape.cluster.x * shape.cluster.y * shape.cluster.z > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = shape.cluster.x;
    cluster.val.clusterDim.y = shape.cluster.y;
    cluster.val.clusterDim.z = shape.cluster.z;
  }
  if (shape.overlap) {
    cudaLaunchAttribute& overlap = attributes[config.numAttrs++];
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
  }
  detail::check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...), "launch", shape);
}

#endif

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes, LaunchOn stream, A&&... arguments) {
  launch(kernel, LaunchShape{grid, block, shared_bytes}, stream, std::forward<A>(arguments)...);
}

}  // namespace culebra::CUL_DEVICE_NS

// The one way to launch a kernel.
//
//   launch(kernel<64>, dim3(blocks), dim3(128), shared_bytes, stream, x, y, n);
//
// Arguments are converted to the kernel's parameter types and copied at the call. Throws culebra::DeviceError when the launch is
// refused. On cuda, what goes wrong later is the stream's; on simt the grid runs when the queue is synchronized, and a fault of the
// kernel throws DeviceError there, with the findings.
#pragma once

#include <type_traits>

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

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared_bytes, detail::LaunchTarget target,
            A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: the kernel takes another number of arguments");
  static_assert((std::is_trivially_copyable_v<P> && ...),
                "launch: kernel parameters are copied bytewise to the device");
  const Launch request{grid, block, dynamic_shared_bytes, target.here};
  check_launch(request);
  auto call = std::make_shared<detail::Call<P...>>(detail::Call<P...>{kernel, {static_cast<P>(arguments)...}});
  target.queue->enqueue([request, call] { run_grid(request, &detail::Call<P...>::run, call.get(), sizeof(*call)); });
}

#else

using NativeStream = cudaStream_t;

namespace detail {

inline void check(cudaError_t error, const char* what, dim3 grid, dim3 block, size_t dynamic_shared_bytes) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();
  throw DeviceError("cuda: " + std::string(what) + ": " + cudaGetErrorString(error) + " (grid " +
                    std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z) +
                    ", block " + std::to_string(block.x) + " x " + std::to_string(block.y) + " x " +
                    std::to_string(block.z) + ", " + std::to_string(dynamic_shared_bytes) +
                    " bytes of dynamic shared memory)");
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
void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared_bytes, NativeStream stream,
            A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: the kernel takes another number of arguments");
  detail::check(detail::allow_shared(reinterpret_cast<const void*>(kernel), dynamic_shared_bytes), "shared memory",
                grid, block, dynamic_shared_bytes);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = dynamic_shared_bytes;
  config.stream = stream;
  detail::check(cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...), "launch", grid, block,
                dynamic_shared_bytes);
}

#endif

}  // namespace culebra::CUL_DEVICE_NS

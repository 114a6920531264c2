// What the emulator's tests share: device memory, a queue that runs at once, every schedule in turn.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "abi/status.h"
#include "backends/simt/emulator/config.h"
#include "backends/simt/emulator/global_memory.h"
#include "backends/simt/emulator/queue.h"
#include "device/launch.h"

namespace culebra::simt::testing {

// Device memory of exactly n elements, undefined until written, between guard bytes that belong to no allocation.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n) : n_(n), raw_(2 * kGuard + n * sizeof(T) + 256) {
    const auto address = reinterpret_cast<uintptr_t>(raw_.data()) + kGuard;
    data_ = reinterpret_cast<T*>((address + 255) / 256 * 256);
    std::memset(raw_.data(), 0xff, raw_.size());
    register_global(data_, bytes());
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    std::memcpy(data_, values.data(), bytes());
    mark_initialized(data_, bytes());
  }
  ~DeviceArray() { unregister_global(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  operator T*() { return data_; }
  T* get() { return data_; }
  size_t bytes() const { return n_ * sizeof(T); }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + n_); }

 private:
  static constexpr size_t kGuard = 4096;
  size_t n_;
  std::vector<char> raw_;
  T* data_;
};

struct ImmediateQueue final : Queue {
  void enqueue(std::function<void()> task) override { task(); }
};

// Launches at once; the findings of the grid, or nothing.
template <class... P, class... A>
std::string findings(void (*kernel)(P...), const LaunchShape& shape, A&&... arguments) {
  ImmediateQueue queue;
  try {
    launch(kernel, shape, &queue, std::forward<A>(arguments)...);
  } catch (const DeviceError& error) {
    return error.what();
  }
  return {};
}
template <class... P, class... A>
std::string findings(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared_bytes, A&&... arguments) {
  return findings(kernel, LaunchShape{grid, block, dynamic_shared_bytes}, std::forward<A>(arguments)...);
}

class ConfigScope {
 public:
  explicit ConfigScope(const std::function<void(Config&)>& change) : saved_(configuration()) {
    Config config = saved_;
    change(config);
    configure(config);
  }
  ~ConfigScope() { configure(saved_); }
  ConfigScope(const ConfigScope&) = delete;
  ConfigScope& operator=(const ConfigScope&) = delete;

 private:
  Config saved_;
};

// In order, reverse, and random with several seeds and numbers of resident blocks.
inline void under_every_schedule(const std::function<void()>& body) {
  struct Case {
    Schedule schedule;
    uint64_t seed;
    unsigned resident_blocks;
  };
  const std::vector<Case> cases = {{Schedule::in_order, 1, 1}, {Schedule::reverse, 1, 1}, {Schedule::in_order, 1, 3},
                                   {Schedule::random, 11, 1},  {Schedule::random, 12, 2}, {Schedule::random, 13, 4},
                                   {Schedule::random, 14, 1},  {Schedule::random, 15, 3}};
  for (const Case& c : cases) {
    SCOPED_TRACE("schedule " + std::to_string(static_cast<int>(c.schedule)) + ", seed " + std::to_string(c.seed) +
                 ", resident blocks " + std::to_string(c.resident_blocks));
    ConfigScope scope([&](Config& config) {
      config.schedule = c.schedule;
      config.seed = c.seed;
      config.resident_blocks = c.resident_blocks;
    });
    body();
  }
}

}  // namespace culebra::simt::testing

// Runs probes and prints one hash for each: the same on a device (nvcc) and under the emulation (host compiler).
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "device/barrier.h"
#include "device/launch.h"
#include "device/tensor_map.h"

#if CUL_EMULATED
#include "backends/simt/emulator/global_memory.h"
#endif

namespace culebra::CUL_DEVICE_NS::fidelity {

#if CUL_EMULATED
struct ImmediateQueue final : Queue {
  void enqueue(std::function<void()> task) override { task(); }
};
#endif

// Words of device memory with known contents, read back once the probe has run.
class Words {
 public:
  explicit Words(size_t count) : values_(count) {
    for (size_t i = 0; i < count; ++i) values_[i] = static_cast<uint32_t>(i + 1) * 2654435761u;
#if CUL_EMULATED
    register_global(values_.data(), bytes());
    mark_initialized(values_.data(), bytes());
#else
    check(cudaMalloc(reinterpret_cast<void**>(&device_), bytes()));
    check(cudaMemcpy(device_, values_.data(), bytes(), cudaMemcpyHostToDevice));
#endif
  }
  ~Words() {
#if CUL_EMULATED
    unregister_global(values_.data());
#else
    cudaFree(device_);
#endif
  }
  Words(const Words&) = delete;
  Words& operator=(const Words&) = delete;

#if CUL_EMULATED
  uint32_t* device() { return values_.data(); }
  const std::vector<uint32_t>& read() { return values_; }
#else
  uint32_t* device() { return device_; }
  const std::vector<uint32_t>& read() {
    check(cudaMemcpy(values_.data(), device_, bytes(), cudaMemcpyDeviceToHost));
    return values_;
  }
#endif

 private:
  size_t bytes() const { return values_.size() * sizeof(uint32_t); }
#if !CUL_EMULATED
  static void check(cudaError_t error) {
    if (error != cudaSuccess) throw DeviceError(cudaGetErrorString(error));
  }
  uint32_t* device_ = nullptr;
#endif
  std::vector<uint32_t> values_;
};

// FNV-1a over the words.
inline uint64_t hash(const std::vector<uint32_t>& words) {
  uint64_t value = 14695981039346656037ull;
  for (const uint32_t word : words)
    for (int shift = 0; shift < 32; shift += 8) value = (value ^ (word >> shift & 0xffu)) * 1099511628211ull;
  return value;
}

// A probe has kName, kThreads, kWords (per thread), kCapability (10 major + minor of the first device that has it) and
// run(words of this thread, thread), which finds known words there and leaves its results. One that has kBlocks runs as a cluster of so
// many; one that has request(words) gets the tensor map of it as run's last argument.
template <class Probe, class... More>
CUL_DEVICE_FN void run_probe_here(uint32_t* words, const More&... more) {
  const int thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
#if !CUL_EMULATED && defined(__CUDA_ARCH__)
  if constexpr (Probe::kCapability * 10 <= __CUDA_ARCH__) Probe::run(words + thread * Probe::kWords, thread, more...);
#elif CUL_EMULATED
  Probe::run(words + thread * Probe::kWords, thread, more...);
#endif
}
template <class Probe>
__global__ void run_probe(uint32_t* words) {
  run_probe_here<Probe>(words);
}
template <class Probe>
__global__ void run_tensor_probe(uint32_t* words, const __grid_constant__ TensorMap map) {
  run_probe_here<Probe>(words, map);
}

using Hashes = std::map<std::string, std::string>;

struct Machine {
  std::string name;
  int capability;
};

inline Machine machine() {
#if CUL_EMULATED
  return {"simt", 90};
#else
  int device = 0;
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess)
    throw DeviceError(cudaGetErrorString(error));
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, device); error != cudaSuccess)
    throw DeviceError(cudaGetErrorString(error));
  return {properties.name, properties.major * 10 + properties.minor};
#endif
}

template <class Probe>
void run(const Machine& where, Hashes& hashes) {
  if (where.capability < Probe::kCapability) return;
  Words words(static_cast<size_t>(Probe::kThreads) * Probe::kWords * Probe::kBlocks);
  const LaunchShape shape{.grid = Probe::kBlocks, .block = Probe::kThreads, .cluster = Probe::kBlocks};
#if CUL_EMULATED
  ImmediateQueue queue;
  Queue* const stream = &queue;
#else
  const cudaStream_t stream{};
#endif
  if constexpr (requires { Probe::request(words.device()); }) {
    launch(run_tensor_probe<Probe>, shape, stream, words.device(), make_tensor_map(Probe::request(words.device())));
  } else {
    launch(run_probe<Probe>, shape, stream, words.device());
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash(words.read())));
  hashes[Probe::kName] = text;
}

// Lines "name hash"; lines that begin with # are comments.
inline Hashes read_hashes(const char* path) {
  std::ifstream file(path);
  if (!file) throw DeviceError(std::string("cannot read ") + path);
  Hashes hashes;
  for (std::string line; std::getline(file, line);) {
    const size_t space = line.find(' ');
    if (!line.empty() && line[0] != '#' && space != std::string::npos)
      hashes[line.substr(0, space)] = line.substr(space + 1);
  }
  return hashes;
}

// Probes that both have and that differ; all of them, or none: nothing in common is an error too.
inline int compare(const Hashes& ours, const Hashes& recorded) {
  int common = 0, different = 0;
  for (const auto& [name, value] : recorded) {
    const auto it = ours.find(name);
    if (it == ours.end()) continue;
    ++common;
    if (it->second == value) continue;
    ++different;
    std::printf("%s differs: recorded %s, here %s\n", name.c_str(), value.c_str(), it->second.c_str());
  }
  std::printf("%d probes compared, %d differ\n", common, different);
  return common == 0 || different != 0;
}

inline void print(const Machine& where, const Hashes& hashes, bool json) {
  if (!json) {
    std::printf("# %s, compute capability %d.%d\n", where.name.c_str(), where.capability / 10, where.capability % 10);
    for (const auto& [name, value] : hashes) std::printf("%s %s\n", name.c_str(), value.c_str());
    return;
  }
  std::printf("{\"device\": \"%s\", \"compute_capability\": \"%d.%d\", \"probes\": {", where.name.c_str(),
              where.capability / 10, where.capability % 10);
  const char* separator = "";
  for (const auto& [name, value] : hashes) {
    std::printf("%s\n  \"%s\": \"%s\"", separator, name.c_str(), value.c_str());
    separator = ",";
  }
  std::printf("\n}}\n");
}

template <class... Probes>
int main_of(int argc, char** argv) {
  try {
    const Machine where = machine();
    Hashes hashes;
    (run<Probes>(where, hashes), ...);
    if (argc == 3 && !std::strcmp(argv[1], "--compare")) return compare(hashes, read_hashes(argv[2]));
    if (argc > 2 || (argc == 2 && std::strcmp(argv[1], "--json"))) {
      std::fprintf(stderr, "usage: %s [--json | --compare FILE]\n", argv[0]);
      return 2;
    }
    print(where, hashes, argc == 2);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

}  // namespace culebra::CUL_DEVICE_NS::fidelity

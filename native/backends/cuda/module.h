// Modules, their kernels and launches, over the driver's entry points.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "backends/backend.h"
#include "backends/cuda/driver.h"
#include "culebra/module.h"

namespace culebra::cuda {

class Module;
class Kernel;

// What a device of a backend with modules is besides.
class ModuleHost {
 public:
  virtual const Driver& driver() = 0;
  // Queues a launch that has been checked on a stream of this device, or records it.
  virtual void launch(Stream& stream, Kernel& kernel, const cul_launch_args& args) = 0;

  // Refuses a device of a backend without modules.
  static ModuleHost& of(Device& device);

 protected:
  ~ModuleHost() = default;
};

struct Parameter {
  int32_t offset, bytes;
};

// Refuses a launch that the kernel or the device does not take. Pure.
void check_launch(const DeviceCaps& caps, const std::string& kernel, const cul_kernel_info& info, const cul_launch_args& args);

class Kernel {
 public:
  Kernel(Module& module, CUfunc_st* function, std::string name);
  Module& module() const { return module_; }
  const cul_kernel_info& info() const { return info_; }
  const std::string& name() const { return name_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  void check(const cul_launch_args& args) const;
  // Queues a launch that check() let pass.
  void launch(const cul_launch_args& args, CUstream_st* stream);

  static Kernel* from(cul_kernel* k) { return reinterpret_cast<Kernel*>(k); }
  cul_kernel* handle() { return reinterpret_cast<cul_kernel*>(this); }

 private:
  int attribute(FunctionAttribute id) const;
  void opt_in(int shared_bytes);

  Module& module_;
  CUfunc_st* const function_;
  const std::string name_;
  std::vector<Parameter> parameters_;
  cul_kernel_info info_{};
  std::mutex mutex_;
  std::atomic<int> opted_in_bytes_;
};

class Module {
 public:
  // log is what the compiler said of the source, where the image was compiled here.
  Module(Device& device, const void* image, uint64_t bytes, std::string log);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  Device& device() const { return device_; }
  ModuleHost& host() const { return host_; }
  const Driver& driver() const { return driver_; }
  const std::string& log() const { return log_; }
  Kernel& kernel(const std::string& name);
  // Turns what the driver answered into a refusal or a failure of the device.
  void check(Result result, const char* what, const std::string& detail) const;

  static Module* from(cul_module* m) { return reinterpret_cast<Module*>(m); }
  cul_module* handle() { return reinterpret_cast<cul_module*>(this); }

 private:
  std::string kernel_names() const;

  Device& device_;
  ModuleHost& host_;
  const Driver& driver_;
  CUmod_st* module_ = nullptr;
  std::string log_;
  std::mutex mutex_;
  std::unordered_map<std::string, std::unique_ptr<Kernel>> kernels_;
};

// The image as the driver takes it: PTX gets the 0 that ends it. Refuses what is neither a cubin, nor a fatbin, nor PTX, and
// a file that was cut short: the driver is not told its size and would read on.
std::string checked_image(const void* image, uint64_t bytes);

}  // namespace culebra::cuda

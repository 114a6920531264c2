#include "backends/cuda/driver.h"

#include <dlfcn.h>

#include <atomic>
#include <deque>
#include <mutex>

#include "abi/status.h"

namespace culebra::cuda {
namespace {

std::atomic<const Driver*> named_driver{nullptr};

template <class Function>
void resolve(Driver& driver, Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(symbol(driver.library, name));
  if (!function)
    refuse(CUL_UNSUPPORTED, "the CUDA driver has no %s: it is older than CUDA 12.4; install a newer one", name);
}

Driver load(void* library) {
  Driver d{};
  d.library = library;
#define CUL_RESOLVE(name) resolve(d, d.name, #name)
  CUL_RESOLVE(cuModuleLoadDataEx);
  CUL_RESOLVE(cuModuleUnload);
  CUL_RESOLVE(cuModuleGetFunction);
  CUL_RESOLVE(cuModuleGetFunctionCount);
  CUL_RESOLVE(cuModuleEnumerateFunctions);
  CUL_RESOLVE(cuFuncGetName);
  CUL_RESOLVE(cuFuncGetAttribute);
  CUL_RESOLVE(cuFuncSetAttribute);
  CUL_RESOLVE(cuFuncGetParamInfo);
  CUL_RESOLVE(cuLaunchKernelEx);
  CUL_RESOLVE(cuGetErrorName);
  CUL_RESOLVE(cuGetErrorString);
#undef CUL_RESOLVE
  return d;
}

Driver load_system() {
  // The runtime, linked statically, opens the same library: one driver, one context per device.
  static const char* const names[] = {"libcuda.so.1", nullptr};
  std::string reasons;
  void* library = open_library(names, &reasons);
  if (!library) refuse(CUL_UNSUPPORTED, "no CUDA driver is installed: %s", reasons.c_str());
  return load(library);
}

}  // namespace

void* symbol(void* library, const char* name) { return dlsym(library, name); }

void* open_library(const char* const* names, std::string* reasons) {
  for (; *names; ++names) {
    if (void* library = dlopen(*names, RTLD_NOW | RTLD_LOCAL)) return library;
    const char* reason = dlerror();
    *reasons += (reasons->empty() ? "" : "; ") + std::string(reason ? reason : *names);
  }
  return nullptr;
}

const Driver& system_driver() {
  static const Driver driver = load_system();  // a refusal is not remembered: the next call tries again
  return driver;
}

const Driver& test_driver() {
  const Driver* driver = named_driver;
  if (!driver)
    refuse(CUL_UNSUPPORTED, "simt has no modules: they are compiled for GPUs; tests name a driver library (cul_testing_use_driver)");
  return *driver;
}

void use_test_driver(const char* path) {
  if (!path) {
    named_driver = nullptr;
    return;
  }
  const char* const names[] = {path, nullptr};
  std::string reasons;
  void* library = open_library(names, &reasons);
  if (!library) refuse(CUL_UNSUPPORTED, "cul_testing_use_driver: %s", reasons.c_str());
  static std::mutex mutex;
  static std::deque<Driver> drivers;  // modules refer to theirs
  std::lock_guard<std::mutex> lock(mutex);
  Driver driver = load(library);
  driver.log = reinterpret_cast<const char* (*)()>(symbol(library, "fake_driver_log"));
  drivers.push_back(driver);
  named_driver = &drivers.back();
}

const char* test_driver_log() {
  const Driver& driver = test_driver();
  if (!driver.log) refuse(CUL_UNSUPPORTED, "cul_testing_driver_log: the library has no fake_driver_log");
  return driver.log();
}

}  // namespace culebra::cuda

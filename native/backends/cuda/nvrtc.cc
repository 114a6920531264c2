#include "backends/cuda/nvrtc.h"

#include <memory>

#include "backends/backend.h"
#include "backends/cuda/driver.h"

struct _nvrtcProgram;

namespace culebra::cuda {
namespace {

using Program = _nvrtcProgram*;
using Answer = int;  // nvrtcResult
constexpr Answer kNvrtcSuccess = 0, kNvrtcOutOfMemory = 1, kNvrtcCompilation = 6;

struct Nvrtc {
  Answer (*nvrtcCreateProgram)(Program*, const char* source, const char* name, int headers, const char* const* texts,
                               const char* const* names);
  Answer (*nvrtcDestroyProgram)(Program*);
  Answer (*nvrtcCompileProgram)(Program, int count, const char* const* options);
  Answer (*nvrtcGetProgramLogSize)(Program, size_t* bytes);
  Answer (*nvrtcGetProgramLog)(Program, char* log);
  Answer (*nvrtcGetCUBINSize)(Program, size_t* bytes);
  Answer (*nvrtcGetCUBIN)(Program, char* cubin);
  const char* (*nvrtcGetErrorString)(Answer);
};

template <class Function>
void resolve(void* library, Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(symbol(library, name));
  if (!function) refuse(CUL_UNSUPPORTED, "cul_module_compile: the NVRTC library has no %s; it is too old", name);
}

Nvrtc load(void* library) {
  Nvrtc n{};
#define CUL_RESOLVE(name) resolve(library, n.name, #name)
  CUL_RESOLVE(nvrtcCreateProgram);
  CUL_RESOLVE(nvrtcDestroyProgram);
  CUL_RESOLVE(nvrtcCompileProgram);
  CUL_RESOLVE(nvrtcGetProgramLogSize);
  CUL_RESOLVE(nvrtcGetProgramLog);
  CUL_RESOLVE(nvrtcGetCUBINSize);
  CUL_RESOLVE(nvrtcGetCUBIN);
  CUL_RESOLVE(nvrtcGetErrorString);
#undef CUL_RESOLVE
  return n;
}

Nvrtc nvrtc(const Driver& driver) {
  // A test driver brings its own compiler.
  if (driver.log && symbol(driver.library, "nvrtcCompileProgram")) return load(driver.library);
  static const char* const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "/usr/local/cuda/lib64/libnvrtc.so", nullptr};
  std::string reasons;
  void* library = open_library(names, &reasons);
  if (!library)
    refuse(CUL_UNSUPPORTED, "cul_module_compile: NVRTC was not found (it comes with the CUDA toolkit; put its folder on LD_LIBRARY_PATH): %s",
           reasons.c_str());
  return load(library);
}

}  // namespace

Compiled compile(const Driver& driver, const DeviceCaps& caps, const char* source, const char* name,
                 std::vector<const char*> options) {
  const Nvrtc n = nvrtc(driver);
  const auto check = [&](Answer answer, const char* what) {
    if (answer == kNvrtcSuccess) return;
    refuse(answer == kNvrtcOutOfMemory ? CUL_OUT_OF_MEMORY : CUL_UNSUPPORTED, "cul_module_compile: %s: %s", what,
           n.nvrtcGetErrorString(answer));
  };
  Program created = nullptr;
  check(n.nvrtcCreateProgram(&created, source, name, 0, nullptr, nullptr), "nvrtcCreateProgram");
  const auto destroy = [&](Program p) { n.nvrtcDestroyProgram(&p); };
  const std::unique_ptr<_nvrtcProgram, decltype(destroy)> program(created, destroy);

  // From Hopper on, code of the very architecture: tensor cores and bulk copies are out of reach without the "a".
  const std::string architecture =
      format("--gpu-architecture=sm_%d%d%s", caps.compute_major, caps.compute_minor, caps.compute_major >= 9 ? "a" : "");
  options.push_back(architecture.c_str());
  const Answer answer = n.nvrtcCompileProgram(program.get(), static_cast<int>(options.size()), options.data());
  Compiled out;
  size_t bytes = 0;
  check(n.nvrtcGetProgramLogSize(program.get(), &bytes), "nvrtcGetProgramLogSize");
  out.log.resize(bytes);
  check(n.nvrtcGetProgramLog(program.get(), out.log.data()), "nvrtcGetProgramLog");
  out.log.resize(out.log.find_last_not_of(std::string("\0\n", 2)) + 1);
  if (answer == kNvrtcCompilation) refuse(CUL_RANGE, "cul_module_compile: %s does not compile:\n%s", name, out.log.c_str());
  if (answer != kNvrtcSuccess)
    refuse(CUL_RANGE, "cul_module_compile: %s\n%s", n.nvrtcGetErrorString(answer), out.log.c_str());
  check(n.nvrtcGetCUBINSize(program.get(), &bytes), "nvrtcGetCUBINSize");
  out.cubin.resize(bytes);
  check(n.nvrtcGetCUBIN(program.get(), out.cubin.data()), "nvrtcGetCUBIN");
  return out;
}

}  // namespace culebra::cuda

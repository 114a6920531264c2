// A driver for tests on machines without a GPU: the entry points that libculebra finds at run time (driver.h, nvrtc.cc). It
// reads modules as far as their kernels' parameters, refuses handles that it did not give and sizes that do not fit,
// records every call, and fails when it is told to. It runs no GPU code: a kernel named axpy (y += a x) is done by the
// host, so that a launch can be seen to have reached memory in its order.
//
// The device has compute capability 8.0 and 163 KB of shared memory for a block, as simt has.
#include "fake_driver.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "backends/cuda/driver.h"
#include "image.h"

using namespace culebra::cuda;

struct CUfunc_st {
  fake::Kernel kernel;
  int max_dynamic_shared = 48 << 10;
};
struct CUmod_st {
  std::vector<std::unique_ptr<CUfunc_st>> functions;
};
struct _nvrtcProgram {
  std::string source, log, image;
};

#define FAKE extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kArchitecture = 80;
constexpr int kSharedBytes = 163 << 10;

std::recursive_mutex mutex;
std::set<CUmod_st*> modules;
std::string log, asked;
int countdown = -1;
Result injected = kSuccess;

__attribute__((format(printf, 1, 2))) void record(const char* text, ...) {
  char line[1024];
  va_list args;
  va_start(args, text);
  std::vsnprintf(line, sizeof line, text, args);
  va_end(args);
  log += line;
  log += '\n';
}

// The next call's answer, if it is to fail.
bool fails(Result* error) {
  if (countdown < 0 || countdown-- > 0) return false;
  *error = injected;
  record("  answers %d", injected);
  return true;
}

bool known(const CUfunc_st* f) {
  for (const CUmod_st* m : modules)
    for (const auto& each : m->functions)
      if (each.get() == f) return true;
  return false;
}

size_t parameter_bytes(const fake::Kernel& kernel) {
  return kernel.parameters.empty() ? 0 : kernel.parameters.back().offset + kernel.parameters.back().bytes;
}

// y[0..n) += a x[0..n), by one thread after the other.
void axpy(void** p) {
  float* y = *static_cast<float**>(p[0]);
  const float* x = *static_cast<float**>(p[1]);
  for (int i = 0; i < *static_cast<int*>(p[2]); ++i) y[i] += *static_cast<float*>(p[3]) * x[i];
}

}  // namespace

#define ENTER(...)                                   \
  std::lock_guard<std::recursive_mutex> lock(mutex); \
  record(__VA_ARGS__);                               \
  if (Result error; fails(&error)) return error

FAKE void fake_driver_fail_after(int calls, int error) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  countdown = calls;
  injected = static_cast<Result>(error);
}
FAKE int fake_driver_modules(void) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  return static_cast<int>(modules.size());
}
FAKE const char* fake_driver_log(void) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  asked.swap(log);
  log.clear();
  return asked.c_str();
}

// ---------------------------------------------------------------------------------------------------- the driver

FAKE Result cuModuleLoadDataEx(CUmod_st** out, const void* image, unsigned count, JitOption* names, void** values) {
  ENTER("cuModuleLoadDataEx");
  if (!out || !image) return kInvalidValue;
  char* error_log = nullptr;
  size_t error_bytes = 0;
  for (unsigned i = 0; i < count; ++i) {
    if (names[i] == kJitErrorLog) error_log = static_cast<char*>(values[i]);
    if (names[i] == kJitErrorLogBytes) error_bytes = reinterpret_cast<size_t>(values[i]);
  }
  const char* bytes = static_cast<const char*>(image);
  fake::Image read;
  std::string problem;
  const bool is_cubin = std::memcmp(bytes, "\177ELF", 4) == 0;
  if (!(is_cubin ? fake::read_cubin(bytes, read) : fake::read_ptx(bytes, read, problem))) {
    if (error_log) std::snprintf(error_log, error_bytes, "%s", problem.c_str());
    return kInvalidPtx;
  }
  if (read.exact ? read.architecture / 10 != kArchitecture / 10 || read.architecture > kArchitecture
                 : read.architecture > kArchitecture)
    return kNoBinaryForGpu;
  auto module = std::make_unique<CUmod_st>();
  for (fake::Kernel& kernel : read.kernels) {
    module->functions.push_back(std::make_unique<CUfunc_st>());
    module->functions.back()->kernel = std::move(kernel);
  }
  *out = module.get();
  modules.insert(module.release());
  return kSuccess;
}

FAKE Result cuModuleUnload(CUmod_st* module) {
  ENTER("cuModuleUnload");
  if (!modules.erase(module)) return kInvalidValue;
  delete module;
  return kSuccess;
}

FAKE Result cuModuleGetFunction(CUfunc_st** out, CUmod_st* module, const char* name) {
  ENTER("cuModuleGetFunction %s", name);
  if (!modules.count(module)) return kInvalidValue;
  for (const auto& f : module->functions)
    if (f->kernel.name == name) {
      *out = f.get();
      return kSuccess;
    }
  return kNotFound;
}

FAKE Result cuModuleGetFunctionCount(unsigned* count, CUmod_st* module) {
  ENTER("cuModuleGetFunctionCount");
  if (!modules.count(module)) return kInvalidValue;
  *count = static_cast<unsigned>(module->functions.size());
  return kSuccess;
}

FAKE Result cuModuleEnumerateFunctions(CUfunc_st** out, unsigned count, CUmod_st* module) {
  ENTER("cuModuleEnumerateFunctions");
  if (!modules.count(module)) return kInvalidValue;
  for (unsigned i = 0; i < count && i < module->functions.size(); ++i) out[i] = module->functions[i].get();
  return kSuccess;
}

FAKE Result cuFuncGetName(const char** name, CUfunc_st* f) {
  ENTER("cuFuncGetName");
  if (!known(f)) return kInvalidValue;
  *name = f->kernel.name.c_str();
  return kSuccess;
}

FAKE Result cuFuncGetAttribute(int* value, FunctionAttribute attribute, CUfunc_st* f) {
  ENTER("cuFuncGetAttribute %d", attribute);
  if (!known(f)) return kInvalidValue;
  switch (attribute) {
    case kMaxThreadsPerBlock: *value = f->kernel.registers > 64 ? 65536 / f->kernel.registers / 32 * 32 : 1024; return kSuccess;
    case kStaticSharedBytes: *value = f->kernel.static_shared_bytes; return kSuccess;
    case kLocalBytes: *value = 0; return kSuccess;
    case kRegisters: *value = f->kernel.registers; return kSuccess;
    case kMaxDynamicSharedBytes: *value = f->max_dynamic_shared; return kSuccess;
  }
  return kInvalidValue;
}

FAKE Result cuFuncSetAttribute(CUfunc_st* f, FunctionAttribute attribute, int value) {
  ENTER("cuFuncSetAttribute %d %d", attribute, value);
  if (!known(f) || attribute != kMaxDynamicSharedBytes || value < 0 || value + f->kernel.static_shared_bytes > kSharedBytes)
    return kInvalidValue;
  f->max_dynamic_shared = value;
  return kSuccess;
}

FAKE Result cuFuncGetParamInfo(CUfunc_st* f, size_t index, size_t* offset, size_t* bytes) {
  ENTER("cuFuncGetParamInfo %zu", index);
  if (!known(f) || index >= f->kernel.parameters.size()) return kInvalidValue;
  *offset = f->kernel.parameters[index].offset;
  *bytes = f->kernel.parameters[index].bytes;
  return kSuccess;
}

FAKE Result cuLaunchKernelEx(const LaunchConfig* c, CUfunc_st* f, void** parameters, void** extra) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  if (!c || !known(f) || extra) return kInvalidValue;
  std::string text = "cuLaunchKernelEx " + f->kernel.name;
  const auto three = [&](const char* what, unsigned x, unsigned y, unsigned z) {
    text += std::string(" ") + what + " " + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z);
  };
  three("grid", c->grid_x, c->grid_y, c->grid_z);
  three("block", c->block_x, c->block_y, c->block_z);
  text += " shared " + std::to_string(c->shared_bytes);
  for (unsigned i = 0; i < c->attribute_count; ++i) {
    const LaunchAttribute& a = c->attributes[i];
    if (a.id == kCooperative) text += " cooperative";
    if (a.id == kProgrammaticStreamSerialization) text += " dependent";
    if (a.id == kClusterDimension) three("cluster", a.value.cluster.x, a.value.cluster.y, a.value.cluster.z);
  }
  // The parameters as the kernel would find them.
  std::vector<unsigned char> block(parameter_bytes(f->kernel));
  for (size_t i = 0; i < f->kernel.parameters.size(); ++i) {
    const fake::Parameter& p = f->kernel.parameters[i];
    std::memcpy(block.data() + p.offset, parameters[i], p.bytes);
    text += i ? "," : " parameters ";
    char digits[3];
    for (size_t b = p.bytes; b-- > 0;) {  // as a number: the highest byte first
      std::snprintf(digits, sizeof digits, "%02x", block[p.offset + b]);
      text += digits;
    }
  }
  record("%s", text.c_str());
  if (Result error; fails(&error)) return error;
  if (static_cast<int>(c->shared_bytes) > f->max_dynamic_shared) return kInvalidValue;
  if (!c->grid_x || !c->grid_y || !c->grid_z || c->block_x * c->block_y * c->block_z == 0) return kInvalidValue;
  if (f->kernel.name == "axpy") axpy(parameters);
  return kSuccess;
}

FAKE Result cuGetErrorName(Result error, const char** name) {
  static const std::map<int, const char*> names = {{1, "CUDA_ERROR_INVALID_VALUE"},
                                                   {2, "CUDA_ERROR_OUT_OF_MEMORY"},
                                                   {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
                                                   {218, "CUDA_ERROR_INVALID_PTX"},
                                                   {500, "CUDA_ERROR_NOT_FOUND"},
                                                   {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
                                                   {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"}};
  const auto it = names.find(error);
  if (it == names.end()) return kInvalidValue;
  *name = it->second;
  return kSuccess;
}

FAKE Result cuGetErrorString(Result error, const char** text) {
  *text = "an error of the test driver";
  return error == kSuccess ? kInvalidValue : kSuccess;
}

// -------------------------------------------------------------------------------------------------------- NVRTC
// Takes PTX as "source"; text with #error does not compile.

FAKE int nvrtcCreateProgram(_nvrtcProgram** out, const char* source, const char* name, int, const char* const*, const char* const*) {
  *out = new _nvrtcProgram{source, name, ""};
  return 0;
}
FAKE int nvrtcDestroyProgram(_nvrtcProgram** program) {
  delete *program;
  *program = nullptr;
  return 0;
}
FAKE int nvrtcCompileProgram(_nvrtcProgram* p, int count, const char* const* options) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  std::string text = "nvrtcCompileProgram " + p->log;
  for (int i = 0; i < count; ++i) text += std::string(" ") + options[i];
  record("%s", text.c_str());
  const bool bad = p->source.find("#error") != std::string::npos;
  p->log += bad ? "(1): error: #error directive" : "(1): warning: nothing to compile";
  p->image = p->source;
  return bad ? 6 : 0;
}
FAKE int nvrtcGetProgramLogSize(_nvrtcProgram* p, size_t* bytes) {
  *bytes = p->log.size() + 1;
  return 0;
}
FAKE int nvrtcGetProgramLog(_nvrtcProgram* p, char* out) {
  std::memcpy(out, p->log.c_str(), p->log.size() + 1);
  return 0;
}
FAKE int nvrtcGetCUBINSize(_nvrtcProgram* p, size_t* bytes) {
  *bytes = p->image.size();
  return 0;
}
FAKE int nvrtcGetCUBIN(_nvrtcProgram* p, char* out) {
  std::memcpy(out, p->image.data(), p->image.size());
  return 0;
}
FAKE const char* nvrtcGetErrorString(int) { return "an error of the test compiler"; }

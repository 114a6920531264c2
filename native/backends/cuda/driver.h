// The driver calls behind modules and launches, found at run time. The prototypes are ours, so that this compiles without
// a CUDA toolkit; driver_abi.cc compares them with cuda.h where there is one.
#pragma once
#include <cstddef>
#include <string>

struct CUmod_st;
struct CUfunc_st;
struct CUstream_st;

namespace culebra::cuda {

// CUresult: the values that this library tells apart. All others fail the device.
enum Result : int {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kInvalidImage = 200,
  kNoBinaryForGpu = 209,
  kInvalidPtx = 218,
  kJitCompilerNotFound = 221,
  kUnsupportedPtxVersion = 222,
  kJitCompilationDisabled = 223,
  kInvalidSource = 300,
  kNotFound = 500,
  kLaunchOutOfResources = 701,
  kCooperativeLaunchTooLarge = 720,
  kNotPermitted = 800,
  kNotSupported = 801,
  kStreamCaptureFirst = 900,  // 900 to 908: the capture, not the device, is at fault
  kStreamCaptureLast = 908,
  kInvalidClusterSize = 912,
};

enum JitOption : int {
  kJitInfoLog = 3,
  kJitInfoLogBytes = 4,
  kJitErrorLog = 5,
  kJitErrorLogBytes = 6,
};

enum FunctionAttribute : int {
  kMaxThreadsPerBlock = 0,
  kStaticSharedBytes = 1,
  kLocalBytes = 3,
  kRegisters = 4,
  kMaxDynamicSharedBytes = 8,
};

enum LaunchAttributeId : int {
  kCooperative = 2,
  kClusterDimension = 4,
  kProgrammaticStreamSerialization = 6,
};

struct LaunchAttribute {
  LaunchAttributeId id;
  char pad[4];
  union {
    char bytes[64];
    int flag;
    struct {
      unsigned x, y, z;
    } cluster;
  } value;
};

struct LaunchConfig {
  unsigned grid_x, grid_y, grid_z;
  unsigned block_x, block_y, block_z;
  unsigned shared_bytes;
  CUstream_st* stream;
  LaunchAttribute* attributes;
  unsigned attribute_count;
};

struct Driver {
  Result (*cuModuleLoadDataEx)(CUmod_st** module, const void* image, unsigned options, JitOption* names, void** values);
  Result (*cuModuleUnload)(CUmod_st* module);
  Result (*cuModuleGetFunction)(CUfunc_st** function, CUmod_st* module, const char* name);
  Result (*cuModuleGetFunctionCount)(unsigned* count, CUmod_st* module);
  Result (*cuModuleEnumerateFunctions)(CUfunc_st** functions, unsigned count, CUmod_st* module);
  Result (*cuFuncGetName)(const char** name, CUfunc_st* function);
  Result (*cuFuncGetAttribute)(int* value, FunctionAttribute attribute, CUfunc_st* function);
  Result (*cuFuncSetAttribute)(CUfunc_st* function, FunctionAttribute attribute, int value);
  Result (*cuFuncGetParamInfo)(CUfunc_st* function, size_t index, size_t* offset, size_t* bytes);
  Result (*cuLaunchKernelEx)(const LaunchConfig* config, CUfunc_st* function, void** parameters, void** extra);
  Result (*cuGetErrorName)(Result error, const char** name);
  Result (*cuGetErrorString)(Result error, const char** text);

  void* library;                  // as dlopen gave it; kept for good
  const char* (*log)() = nullptr; // of a test driver: the calls that it has seen
};

// The machine's driver. Refuses (UNSUPPORTED) where there is none.
const Driver& system_driver();
// That of cul_testing_use_driver. Refuses where none was named.
const Driver& test_driver();
void use_test_driver(const char* path);
const char* test_driver_log();

// A symbol of a library that dlopen gave, or null.
void* symbol(void* library, const char* name);
// Opens the first of these libraries that is there; null, and why each was not, otherwise.
void* open_library(const char* const* names, std::string* reasons);

}  // namespace culebra::cuda

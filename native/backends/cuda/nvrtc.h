// Compilation of CUDA C++ at run time with NVRTC, whose library is looked for when it is first needed.
#pragma once
#include <string>
#include <vector>

namespace culebra {
struct DeviceCaps;
}

namespace culebra::cuda {

struct Driver;

struct Compiled {
  std::string cubin;
  std::string log;
};

// Refuses with UNSUPPORTED where there is no NVRTC, with RANGE and the log where the source does not compile.
Compiled compile(const Driver& driver, const DeviceCaps& caps, const char* source, const char* name,
                 std::vector<const char*> options);

}  // namespace culebra::cuda

// NVTX: a profiler that is attached (Nsight Systems, for one) shows operator calls by name, in the domain "culebra". Without one a range costs two
// calls that return at once. Compiled in where the CUDA toolkit brings the header.
#pragma once

namespace culebra {

class TraceRange {
 public:
  explicit TraceRange(const char* name) noexcept;
  ~TraceRange();
  TraceRange(const TraceRange&) = delete;
  TraceRange& operator=(const TraceRange&) = delete;
};

}  // namespace culebra

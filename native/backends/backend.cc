#include "backends/backend.h"

namespace culebra {

Graph::Graph(Device& device) : device_(device) { ++device_.children; }
Graph::~Graph() { --device_.children; }
Event::Event(Device& device) : device_(device) { ++device_.children; }
Event::~Event() { --device_.children; }
Stream::Stream(Device& device) : device_(device) { ++device_.children; }
Stream::~Stream() { --device_.children; }

void Stream::require_not_capturing(const char* what) const {
  if (capturing()) refuse(CUL_UNSUPPORTED, "%s is refused while the stream captures a graph", what);
}

void Stream::enqueue(std::function<void()>) { refuse(CUL_INTERNAL, "this stream's backend has no host queue"); }
ThreadPool& Stream::pool() { refuse(CUL_INTERNAL, "this stream's backend has no thread pool"); }
CUstream_st* Stream::cuda() { refuse(CUL_INTERNAL, "this stream is not a CUDA stream"); }
simt::Queue* Stream::simt() { refuse(CUL_INTERNAL, "this stream is not a simt stream"); }

void Device::fail(const std::string& reason) {
  std::lock_guard<std::mutex> lock(reason_mutex_);
  if (!failed_) reason_ = reason;
  failed_ = true;
}

void Device::require_healthy() const {
  if (!failed_) return;
  std::lock_guard<std::mutex> lock(reason_mutex_);
  throw DeviceError(reason_);
}

namespace {

template <int32_t kId>
int absent_count(std::string* reason) {
  *reason = kId == CUL_BACKEND_CUDA ? "this build of the library has no CUDA code (CULEBRA_CUDA=OFF or no nvcc found)"
                                    : "this build of the library has no simt backend (CULEBRA_SIMT=OFF)";
  return 0;
}
template <int32_t kId>
std::unique_ptr<Device> absent_open(int, const cul_device_options&) {
  std::string reason;
  absent_count<kId>(&reason);
  refuse(CUL_UNSUPPORTED, "%s", reason.c_str());
}

constexpr BackendEntry kBackends[CUL_BACKEND_COUNT] = {
    {CUL_BACKEND_CPU, "cpu", cpu::device_count, cpu::open_device},
#if CULEBRA_HAS_CUDA
    {CUL_BACKEND_CUDA, "cuda", cuda::device_count, cuda::open_device},
#else
    {CUL_BACKEND_CUDA, "cuda", absent_count<CUL_BACKEND_CUDA>, absent_open<CUL_BACKEND_CUDA>},
#endif
#if CULEBRA_HAS_SIMT
    {CUL_BACKEND_SIMT, "simt", simt::device_count, simt::open_device},
#else
    {CUL_BACKEND_SIMT, "simt", absent_count<CUL_BACKEND_SIMT>, absent_open<CUL_BACKEND_SIMT>},
#endif
};

}  // namespace

const BackendEntry& backend(int32_t id) {
  if (id < 0 || id >= CUL_BACKEND_COUNT) refuse(CUL_RANGE, "there is no backend %d; 0 cpu, 1 cuda, 2 simt", id);
  return kBackends[id];
}

}  // namespace culebra

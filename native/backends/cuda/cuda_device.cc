// The cuda backend. The CUDA runtime is linked statically and finds the driver when it is first asked: on a machine
// without one this file reports why, and nothing else of it runs.
#include <cuda_runtime_api.h>

#include <chrono>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "backends/cuda/module.h"
#include "backends/fault.h"
#include "backends/graph_keeper.h"
#include "backends/graph_update.h"

namespace culebra::cuda {
namespace {

class CudaDevice;

// Out of memory is the caller's to handle and leaves the device usable; everything else fails the device.
void check(Device& device, cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const std::string text =
      format("%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
  (void)cudaGetLastError();  // clears a non-sticky error
  if (error == cudaErrorMemoryAllocation) throw Refusal(CUL_OUT_OF_MEMORY, text);
  device.fail(text);
  throw DeviceError(text);
}
#define CUL_CHECK(device, call) check(device, fault::strikes() ? cudaErrorUnknown : (call), #call)

using Kept = std::vector<std::shared_ptr<void>>;

class CudaStream final : public Stream, public GraphUpdater, public GraphKeeper {
 public:
  explicit CudaStream(CudaDevice& device);
  ~CudaStream() override { cudaStreamDestroy(stream_); }

  void synchronize() override {
    require_not_capturing("a synchronization");
    CUL_CHECK(device(), cudaStreamSynchronize(stream_));
  }
  bool idle() override {
    require_not_capturing("a query");
    const cudaError_t e = cudaStreamQuery(stream_);
    if (e == cudaErrorNotReady) return false;
    check(device(), e, "cudaStreamQuery");
    return true;
  }
  void copy(void* dst, const void* src, uint64_t bytes) override {
    CUL_CHECK(device(), cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, stream_));
  }
  void fill(void* dst, int byte, uint64_t bytes) override {
    CUL_CHECK(device(), cudaMemsetAsync(dst, byte, bytes, stream_));
  }
  void* allocate(uint64_t bytes) override;
  void release(void* pointer) override;
  void begin_capture() override {
    require_not_capturing("a second capture");
    CUL_CHECK(device(), cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed));
    capturing_ = true;
  }
  std::unique_ptr<Graph> end_capture() override;
  bool end_capture_into(Graph& graph) override;
  void abort_capture() override {
    if (!capturing_) return;
    capturing_ = false;
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream_, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    kept_.clear();
  }
  bool capturing() const override { return capturing_; }
  void keep_for_graph(std::shared_ptr<void> what) override { kept_.push_back(std::move(what)); }
  CUstream_st* cuda() override { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
  bool capturing_ = false;
  Kept kept_;  // of the capture that is open
};

class CudaGraph final : public Graph {
 public:
  CudaGraph(Device& device, cudaGraph_t graph, Kept kept) : Graph(device), graph_(graph), kept_(std::move(kept)) {
    const cudaError_t e = cudaGraphInstantiate(&exec_, graph_, 0);
    if (e != cudaSuccess) cudaGraphDestroy(graph_);
    check(device, e, "cudaGraphInstantiate");
  }
  ~CudaGraph() override {
    cudaGraphExecDestroy(exec_);
    cudaGraphDestroy(graph_);
  }
  void launch(Stream& stream) override { CUL_CHECK(device(), cudaGraphLaunch(exec_, stream.cuda())); }
  uint64_t node_count() const override {
    size_t n = 0;
    return cudaGraphGetNodes(graph_, nullptr, &n) == cudaSuccess ? n : 0;
  }
  // Takes another recording over; true if the instantiated graph could be kept.
  bool replace(cudaGraph_t graph, Kept kept) {
    cudaGraphExecUpdateResultInfo result{};
    const bool in_place = cudaGraphExecUpdate(exec_, graph, &result) == cudaSuccess;
    if (!in_place) {
      (void)cudaGetLastError();  // other nodes than before: no failure of the device
      cudaGraphExec_t fresh = nullptr;
      const cudaError_t e = cudaGraphInstantiate(&fresh, graph, 0);
      if (e != cudaSuccess) cudaGraphDestroy(graph);
      check(device(), e, "cudaGraphInstantiate");
      cudaGraphExecDestroy(exec_);  // launches in flight end with it as it was
      exec_ = fresh;
    }
    cudaGraphDestroy(graph_);
    graph_ = graph;
    kept_ = std::move(kept);
    return in_place;
  }

 private:
  cudaGraph_t graph_;
  cudaGraphExec_t exec_ = nullptr;
  Kept kept_;
};

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(Device& device) : Event(device) { CUL_CHECK(device, cudaEventCreate(&event_)); }
  ~CudaEvent() override { cudaEventDestroy(event_); }
  void record(Stream& stream) override {
    CUL_CHECK(device(), cudaEventRecord(event_, stream.cuda()));
    recorded_ = true;
  }
  void wait_on(Stream& stream) override { CUL_CHECK(device(), cudaStreamWaitEvent(stream.cuda(), event_, 0)); }
  bool passed() override {
    const cudaError_t e = cudaEventQuery(event_);
    if (e == cudaErrorNotReady) return false;
    check(device(), e, "cudaEventQuery");
    return true;
  }
  void synchronize() override { CUL_CHECK(device(), cudaEventSynchronize(event_)); }
  double elapsed_ms_until(Event& end) override {
    auto& last = static_cast<CudaEvent&>(end);
    if (!recorded_ || !last.recorded_ || !passed() || !last.passed())
      refuse(CUL_UNSUPPORTED, "cul_event_elapsed_ms: an event has not been recorded or has not passed yet");
    float ms = 0;
    CUL_CHECK(device(), cudaEventElapsedTime(&ms, event_, last.event_));
    return static_cast<double>(ms);
  }

 private:
  cudaEvent_t event_ = nullptr;
  bool recorded_ = false;
};

class CudaDevice final : public Device, public ModuleHost {
 public:
  CudaDevice(int index, const cul_device_options& options) : limit_(options.memory_limit_bytes), poison_(options.poison) {
    CUL_CHECK(*this, cudaSetDevice(index));
    cudaDeviceProp p{};
    CUL_CHECK(*this, cudaGetDeviceProperties(&p, index));
    caps_.backend = CUL_BACKEND_CUDA;
    caps_.id = {CUL_DEVICE_CUDA, index};
    caps_.compute_major = p.major;
    caps_.compute_minor = p.minor;
    caps_.multiprocessors = p.multiProcessorCount;
    caps_.shared_bytes_per_block = static_cast<int>(p.sharedMemPerBlockOptin);
    caps_.l2_bytes = static_cast<uint64_t>(p.l2CacheSize);
    caps_.memory_bytes = p.totalGlobalMem;
    caps_.name = p.name;
    int driver = 0, runtime = 0;
    CUL_CHECK(*this, cudaDriverGetVersion(&driver));
    CUL_CHECK(*this, cudaRuntimeGetVersion(&runtime));
    caps_.detail = format("CUDA driver %d.%d, runtime %d.%d", driver / 1000, driver % 1000 / 10, runtime / 1000,
                          runtime % 1000 / 10);
    if (p.major < 8)
      refuse(CUL_ARCH, "%s has compute capability %d.%d; the kernels need 8.0 or newer", p.name, p.major, p.minor);
    cudaMemPoolProps props{};
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    props.location.id = index;
    CUL_CHECK(*this, cudaMemPoolCreate(&pool_, &props));
    uint64_t keep = UINT64_MAX;  // freed memory stays in the pool until trim
    CUL_CHECK(*this, cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep));
    CUL_CHECK(*this, cudaStreamCreateWithFlags(&own_stream_, cudaStreamNonBlocking));
  }
  ~CudaDevice() override {
    if (own_stream_) cudaStreamDestroy(own_stream_);
    for (auto& [pointer, bytes] : host_) cudaFreeHost(pointer);
    for (auto& [pointer, bytes] : live_) cudaFree(pointer);
    if (pool_) cudaMemPoolDestroy(pool_);
  }

  void enter() override { CUL_CHECK(*this, cudaSetDevice(caps_.id.index)); }
  std::unique_ptr<Stream> create_stream() override { return std::make_unique<CudaStream>(*this); }
  std::unique_ptr<Event> create_event() override { return std::make_unique<CudaEvent>(*this); }

  void* allocate(uint64_t bytes) override {
    void* p = allocate_on(own_stream_, bytes);
    CUL_CHECK(*this, cudaStreamSynchronize(own_stream_));
    return p;
  }
  void release(void* pointer) override { release_on(own_stream_, pointer); }

  void* allocate_on(cudaStream_t stream, uint64_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (bytes > UINT64_MAX / 2 || (limit_ && used_ + bytes > limit_))
        refuse(CUL_OUT_OF_MEMORY, "%llu bytes were asked for; %llu of the limit of %llu are in use",
               static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(used_),
               static_cast<unsigned long long>(limit_));
      used_ += bytes;
    }
    void* p = nullptr;
    const cudaError_t e =
        fault::strikes() ? cudaErrorMemoryAllocation
                         : cudaMallocFromPoolAsync(&p, std::max<uint64_t>(bytes, 1), pool_, stream);
    std::lock_guard<std::mutex> lock(mutex_);
    if (e != cudaSuccess) used_ -= bytes;
    check(*this, e, "cudaMallocFromPoolAsync");
    live_.emplace(p, bytes);
    peak_ = std::max(peak_, used_);
    ++allocations_;
    if (poison_) CUL_CHECK(*this, cudaMemsetAsync(p, 0xFF, bytes, stream));
    return p;
  }
  void release_on(cudaStream_t stream, void* pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = live_.find(pointer);
    if (it == live_.end()) refuse(CUL_RANGE, "%p is not live memory of this device", pointer);
    used_ -= it->second;
    live_.erase(it);
    CUL_CHECK(*this, cudaFreeAsync(pointer, stream));
  }

  void* allocate_host(uint64_t bytes) override {
    void* p = nullptr;
    CUL_CHECK(*this, cudaMallocHost(&p, std::max<uint64_t>(bytes, 1)));
    std::lock_guard<std::mutex> lock(mutex_);
    host_.emplace(p, bytes);
    host_bytes_ += bytes;
    return p;
  }
  void release_host(void* pointer) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = host_.find(pointer);
    if (it == host_.end()) refuse(CUL_RANGE, "%p is not live host memory of this device", pointer);
    host_bytes_ -= it->second;
    host_.erase(it);
    CUL_CHECK(*this, cudaFreeHost(pointer));
  }

  void memory_stats(cul_memory_stats& out) override {
    std::lock_guard<std::mutex> lock(mutex_);
    out.used_bytes = used_;
    CUL_CHECK(*this, cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &out.reserved_bytes));
    out.peak_used_bytes = peak_;
    out.limit_bytes = limit_;
    out.allocations = allocations_;
    out.live_allocations = live_.size();
    out.host_bytes = host_bytes_;
  }
  void set_memory_limit(uint64_t bytes) override {
    std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
  }
  void trim_memory(uint64_t keep_bytes) override { CUL_CHECK(*this, cudaMemPoolTrimTo(pool_, keep_bytes)); }
  const Driver& driver() override { return system_driver(); }
  void launch(Stream& stream, Kernel& kernel, const cul_launch_args& args) override { kernel.launch(args, stream.cuda()); }
  void synchronize() override { CUL_CHECK(*this, cudaDeviceSynchronize()); }

 private:
  cudaMemPool_t pool_ = nullptr;
  cudaStream_t own_stream_ = nullptr;
  std::mutex mutex_;
  std::unordered_map<void*, uint64_t> live_, host_;
  uint64_t limit_, used_ = 0, peak_ = 0, allocations_ = 0, host_bytes_ = 0;
  bool poison_;
};

CudaStream::CudaStream(CudaDevice& device) : Stream(device) {
  CUL_CHECK(device, cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}
void* CudaStream::allocate(uint64_t bytes) {
  require_not_capturing("allocation");
  return static_cast<CudaDevice&>(device()).allocate_on(stream_, bytes);
}
void CudaStream::release(void* pointer) {
  require_not_capturing("a free");
  static_cast<CudaDevice&>(device()).release_on(stream_, pointer);
}
bool CudaStream::end_capture_into(Graph& graph) {
  capturing_ = false;
  cudaGraph_t recorded = nullptr;
  Kept kept = std::exchange(kept_, {});
  CUL_CHECK(device(), cudaStreamEndCapture(stream_, &recorded));
  return static_cast<CudaGraph&>(graph).replace(recorded, std::move(kept));
}
std::unique_ptr<Graph> CudaStream::end_capture() {
  if (!capturing_) refuse(CUL_UNSUPPORTED, "cul_graph_end_capture: the stream is not capturing");
  capturing_ = false;
  cudaGraph_t graph = nullptr;
  Kept kept = std::exchange(kept_, {});
  CUL_CHECK(device(), cudaStreamEndCapture(stream_, &graph));
  return std::make_unique<CudaGraph>(device(), graph, std::move(kept));
}

}  // namespace

int device_count(std::string* reason) {
  int n = 0;
  const cudaError_t e = cudaGetDeviceCount(&n);
  if (e == cudaSuccess) {
    if (n == 0) *reason = "the CUDA driver reports no device";
    return n;
  }
  (void)cudaGetLastError();
  if (e == cudaErrorInsufficientDriver) {
    int driver = 0;
    *reason = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0
                  ? format("the CUDA driver supports CUDA %d.%d, older than this library's %d.%d", driver / 1000,
                           driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10)
                  : "no CUDA driver is installed (libcuda.so.1 was not found)";
  } else {
    *reason = format("the CUDA driver answers: %s (%s)", cudaGetErrorString(e), cudaGetErrorName(e));
  }
  return 0;
}

std::unique_ptr<Device> open_device(int index, const cul_device_options& options) {
  return std::make_unique<CudaDevice>(index, options);
}

}  // namespace culebra::cuda

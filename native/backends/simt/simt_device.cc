// The simt backend: the kernels of the cuda backend under the host compiler, for tests. A stream is a lazy queue that runs
// on the thread that synchronizes, so that a missing synchronization shows.
#include <cstdlib>
#include <utility>

#include "backends/cuda/module.h"
#include "backends/host_stream.h"
#include "backends/simt/emulator/config.h"
#include "backends/simt/emulator/global_memory.h"
#include "backends/simt/emulator/queue.h"

namespace culebra::simt {
namespace {

// Blocks are taken from the system one by one and given back at once: an access after a free, or past the end, is an
// access outside every registered allocation.
constexpr uint64_t kAlignment = 256;

void* take(uint64_t bytes) {
  const uint64_t rounded = (std::max<uint64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* p = std::aligned_alloc(kAlignment, rounded);
  if (p) register_global(p, bytes);
  return p;
}
void give(void* p, uint64_t) {
  unregister_global(p);
  std::free(p);
}

class SimtDevice final : public HostDevice, public cuda::ModuleHost {
 public:
  SimtDevice(int index, const cul_device_options& options)
      : HostDevice({take, give, false}, options.memory_limit_bytes, true) {
    caps_.backend = CUL_BACKEND_SIMT;
    caps_.id = {CUL_DEVICE_SIMT, index};
    caps_.compute_major = index == 0 ? 8 : 9;  // the second one runs the kernels for Hopper
    caps_.compute_minor = 0;
    caps_.multiprocessors = 8;  // few, so that plans split work on small test shapes
    caps_.shared_bytes_per_block = (index == 0 ? 163 : 227) << 10;
    caps_.l2_bytes = 40 << 20;
    caps_.memory_bytes = 8ull << 30;
    caps_.name = "SIMT emulation of compute capability " + std::to_string(caps_.compute_major) + ".0";
    caps_.detail = hooks_linked() ? "bounds, initialisation, races and async copies of every access are checked"
                                  : "emulated instructions are checked; plain accesses are not (CULEBRA_SIMT_HOOKS=OFF)";
  }
  std::unique_ptr<Stream> create_stream() override;
  const cuda::Driver& driver() override { return cuda::test_driver(); }
  // A test driver's kernels run at once, so what is queued runs before them; a refusal reaches the caller as on a GPU. A
  // captured launch keeps a copy of its parameters, as a CUDA graph does.
  void launch(Stream& stream, cuda::Kernel& kernel, const cul_launch_args& args) override {
    if (!stream.capturing()) {
      stream.synchronize();
      kernel.launch(args, nullptr);
      return;
    }
    const auto* block = static_cast<const char*>(args.parameters);
    stream.enqueue([&kernel, copy = cul_launch_args(args), parameters = std::string(block, args.parameter_bytes)]() mutable {
      copy.parameters = parameters.data();
      kernel.launch(copy, nullptr);
    });
  }

  std::recursive_mutex running;  // one thread at a time runs queues of this device

 protected:
  void allocated(void* p, uint64_t bytes) override { mark_uninitialized(p, bytes); }
};

class SimtStream final : public HostStream, public Queue {
 public:
  explicit SimtStream(SimtDevice& device) : HostStream(device), device_(device) {}
  ~SimtStream() override { drain(nullptr); }

  void enqueue(std::function<void()> work) override { HostStream::enqueue(std::move(work)); }
  void synchronize() override {
    require_not_capturing("a synchronization");
    drain(nullptr);
    device().require_healthy();
  }
  bool idle() override {
    require_not_capturing("a query");
    drain(nullptr);
    return true;
  }
  Queue* simt() override { return this; }

  void advance_until(const std::function<bool()>& passed) override { drain(&passed); }
  // Not from within one of its own tasks: what is queued behind that must not run before its end.
  void try_advance(const std::function<bool()>& passed) override {
    std::unique_lock<std::recursive_mutex> one(device_.running, std::try_to_lock);
    if (one && !running_task_) drain(&passed);
  }

 private:
  void submit(Task task) override {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(task));
  }
  // Runs the queue in order until it is empty, or until *passed. A task that waits for an event of another stream drains
  // that one from within.
  void drain(const std::function<bool()>* passed) {
    std::lock_guard<std::recursive_mutex> one(device_.running);
    while (!passed || !(*passed)()) {
      Task task;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (queue_.empty()) return;
        task = std::move(queue_.front());
        queue_.pop_front();
      }
      const bool nested = std::exchange(running_task_, true);
      run(task);
      running_task_ = nested;
    }
  }

  SimtDevice& device_;
  std::mutex mutex_;
  std::deque<Task> queue_;
  bool running_task_ = false;  // under device_.running
};

std::unique_ptr<Stream> SimtDevice::create_stream() { return std::make_unique<SimtStream>(*this); }

}  // namespace

int device_count(std::string*) { return 2; }  // two, so that tests can mix up devices, and of two generations

std::unique_ptr<Device> open_device(int index, const cul_device_options& options) {
  if (options.schedule < 0 || options.schedule > 2)
    refuse(CUL_RANGE, "schedule is %d; it must be 0 (in order), 1 (reverse) or 2 (random)", options.schedule);
  if (options.schedule || options.seed) {
    Config config = configuration();
    config.schedule = static_cast<Schedule>(options.schedule);
    if (options.seed) config.seed = options.seed;
    configure(config);
  }
  return std::make_unique<SimtDevice>(index, options);
}

}  // namespace culebra::simt

// The cpu backend: one worker a stream, one pool of threads a device.
#include <sched.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "backends/cpu/simd_target.h"
#include "backends/cpu/thread_pool.h"
#include "backends/host_stream.h"

namespace culebra::cpu {
namespace {

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::string model_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "cpu";
}

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kHugePage = uint64_t{2} << 20;

// Large blocks lie in huge pages where the system has them: the hardware's prefetching ends with each page, and reading weights
// once is as fast as it follows them.
void* allocate_block(uint64_t bytes) {
  if (bytes < 2 * kHugePage) return std::aligned_alloc(kAlignment, bytes);
  void* block = std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
#ifdef MADV_HUGEPAGE
  if (block) madvise(block, bytes, MADV_HUGEPAGE);
#endif
  return block;
}

class CpuDevice final : public HostDevice {
 public:
  explicit CpuDevice(const cul_device_options& options)
      : HostDevice({allocate_block, [](void* p, uint64_t) { std::free(p); }, true},
                   options.memory_limit_bytes, options.poison != 0),
        threads_(options.threads > 0 ? options.threads : usable_cores()) {
    caps_.backend = CUL_BACKEND_CPU;
    caps_.id = {CUL_DEVICE_CPU, 0};
    caps_.multiprocessors = threads_.size();
    caps_.name = model_name();
    caps_.detail = simd_target_name();
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    caps_.l2_bytes = l2 > 0 ? static_cast<uint64_t>(l2) : 0;
    struct sysinfo info;
    if (sysinfo(&info) == 0) caps_.memory_bytes = uint64_t{info.totalram} * info.mem_unit;
  }
  std::unique_ptr<Stream> create_stream() override;
  ThreadPool& threads() { return threads_; }

 private:
  ThreadPool threads_;
};

class CpuStream final : public HostStream {
 public:
  explicit CpuStream(CpuDevice& device) : HostStream(device), threads_(device.threads()), worker_([this] { work(); }) {}
  ~CpuStream() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    worker_.join();  // the worker empties its queue first
  }

  void synchronize() override {
    require_not_capturing("a synchronization");
    std::unique_lock<std::mutex> lock(mutex_);
    const uint64_t target = submitted_;
    idle_.wait(lock, [&] { return finished_ >= target; });
    lock.unlock();
    device().require_healthy();
  }
  bool idle() override {
    require_not_capturing("a query");
    std::lock_guard<std::mutex> lock(mutex_);
    return finished_ == submitted_;
  }
  ThreadPool& pool() override { return threads_; }
  void advance_until(const std::function<bool()>&) override {}  // the worker advances by itself

 private:
  void submit(Task task) override {
    bool asleep;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      queue_.push_back(std::move(task));
      asleep = sleeping_;
      pending_.store(++submitted_, std::memory_order_relaxed);
    }
    if (asleep) wake_.notify_one();
  }

  void work() {
    for (;;) {
      // Look a little before sleeping: the next op of a model follows within microseconds.
      for (int i = 0; i < kSpins && pending_.load(std::memory_order_relaxed) == finished_ && !stop_; ++i) relax();
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_ = true;
      wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
      sleeping_ = false;
      if (queue_.empty()) return;
      Task task = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      run(task);
      task.body = nullptr;  // what it holds goes before anybody is told that it is done
      lock.lock();
      ++finished_;
      lock.unlock();
      idle_.notify_all();
    }
  }

  static constexpr int kSpins = 2000;
  static void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  ThreadPool& threads_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<Task> queue_;
  uint64_t submitted_ = 0;
  std::atomic<uint64_t> pending_{0};
  std::atomic<uint64_t> finished_{0};
  std::atomic<bool> stop_{false};
  bool sleeping_ = false;
  std::thread worker_;
};

std::unique_ptr<Stream> CpuDevice::create_stream() { return std::make_unique<CpuStream>(*this); }

}  // namespace

int device_count(std::string*) { return 1; }

std::unique_ptr<Device> open_device(int, const cul_device_options& options) {
  if (options.threads < 0 || options.threads > 1024)
    refuse(CUL_RANGE, "threads is %d; it must be 0 (all cores) to 1024", options.threads);
  return std::make_unique<CpuDevice>(options);
}

}  // namespace culebra::cpu

#include "backends/host_stream.h"

#include <cstring>

#if CULEBRA_HAS_SIMT
#include "backends/simt/emulator/global_memory.h"
#endif

namespace culebra {
namespace {

using Clock = std::chrono::steady_clock;
using Works = std::vector<std::function<void()>>;

class HostGraph final : public Graph {
 public:
  HostGraph(Device& device, Works works) : Graph(device), works_(std::make_shared<const Works>(std::move(works))) {}
  void launch(Stream& stream) override {
    stream.enqueue([works = works_] {
      for (const auto& work : *works) work();
    });
  }
  uint64_t node_count() const override { return works_->size(); }
  void replace(Works works) { works_ = std::make_shared<const Works>(std::move(works)); }

 private:
  std::shared_ptr<const Works> works_;  // shared with launches that are still queued
};

class HostEvent final : public Event {
 public:
  using Event::Event;

  void record(Stream& stream) override {
    auto point = std::make_shared<Point>();
    point->stream = &static_cast<HostStream&>(stream);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      last_ = point;
    }
    point->stream->enqueue_always([point] {
      std::lock_guard<std::mutex> lock(point->mutex);
      point->time = Clock::now();
      point->passed = true;
      point->changed.notify_all();
    });
  }

  void wait_on(Stream& stream) override {
    if (auto point = last(); point && point->stream != &stream)
      static_cast<HostStream&>(stream).enqueue_always([point] { wait(*point); });
  }

  bool passed() override {
    auto point = last();
    return !point || point->is_passed();
  }

  void synchronize() override {
    if (auto point = last()) wait(*point);
    device().require_healthy();
  }

  double elapsed_ms_until(Event& end) override {
    const auto a = last(), b = static_cast<HostEvent&>(end).last();
    if (!a || !b || !a->is_passed() || !b->is_passed())
      refuse(CUL_UNSUPPORTED, "cul_event_elapsed_ms: an event has not been recorded or has not passed yet");
    return std::chrono::duration<double, std::milli>(b->time - a->time).count();
  }

 private:
  struct Point {  // one record of the event
    HostStream* stream = nullptr;
    std::mutex mutex;
    std::condition_variable changed;
    bool passed = false;
    Clock::time_point time;
    bool is_passed() {
      std::lock_guard<std::mutex> lock(mutex);
      return passed;
    }
  };
  static void wait(Point& point) {
    if (point.is_passed()) return;
    point.stream->advance_until([&] { return point.is_passed(); });
    std::unique_lock<std::mutex> lock(point.mutex);
    point.changed.wait(lock, [&] { return point.passed; });
  }
  std::shared_ptr<Point> last() {
    std::lock_guard<std::mutex> lock(mutex_);
    return last_;
  }

  std::mutex mutex_;
  std::shared_ptr<Point> last_;
};

}  // namespace

void note_host_write([[maybe_unused]] const Device& device, [[maybe_unused]] const void* p,
                     [[maybe_unused]] uint64_t bytes) {
#if CULEBRA_HAS_SIMT
  if (device.caps().backend == CUL_BACKEND_SIMT) simt::mark_initialized(p, bytes);
#endif
}

std::unique_ptr<Event> HostDevice::create_event() { return std::make_unique<HostEvent>(*this); }

void* HostDevice::allocate(uint64_t bytes) {
  void* pointer = pool_.allocate(bytes);
  if (poison_) std::memset(pointer, 0xFF, bytes);
  allocated(pointer, bytes);
  return pointer;
}

void HostStream::enqueue(std::function<void()> work) {
  if (recording_) recording_->push_back(std::move(work));
  else submit({std::move(work)});
}

void HostStream::run(const Task& task) noexcept {
  if (!task.always && device().failed()) return;
  try {
    task.body();
  } catch (const std::exception& e) {
    device().fail(e.what());
  }
}

void HostStream::copy(void* dst, const void* src, uint64_t bytes) {
  enqueue([&device = device(), dst, src, bytes] {  // not the stream: a graph may outlive it
    std::memmove(dst, src, bytes);
    note_host_write(device, dst, bytes);
  });
}

void HostStream::fill(void* dst, int byte, uint64_t bytes) {
  enqueue([&device = device(), dst, byte, bytes] {
    std::memset(dst, byte, bytes);
    note_host_write(device, dst, bytes);
  });
}

void* HostStream::allocate(uint64_t bytes) {
  require_not_capturing("allocation");
  try {
    return host_device_.allocate(bytes);
  } catch (const Refusal&) {
    synchronize();  // queued frees of this stream may make room
    return host_device_.allocate(bytes);
  }
}

void HostStream::release(void* pointer) {
  require_not_capturing("a free");
  host_device_.memory().mark_release_queued(pointer);
  enqueue_always([this, pointer] { host_device_.memory().release(pointer); });
}

void HostStream::begin_capture() {
  require_not_capturing("a second capture");
  recording_ = std::make_unique<Works>();
}

std::unique_ptr<Graph> HostStream::end_capture() {
  if (!recording_) refuse(CUL_UNSUPPORTED, "cul_graph_end_capture: the stream is not capturing");
  const auto works = std::move(recording_);
  return std::make_unique<HostGraph>(device(), std::move(*works));
}

bool HostStream::end_capture_into(Graph& graph) {
  const auto works = std::move(recording_);
  static_cast<HostGraph&>(graph).replace(std::move(*works));
  return true;
}

void HostStream::abort_capture() { recording_.reset(); }

}  // namespace culebra

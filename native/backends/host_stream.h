// Streams, events and graphs of the backends that run on the host: cpu (a worker in order) and simt (a queue that runs at
// a synchronization). What they share: tasks, capture, copies, stream-ordered memory.
#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <vector>

#include "backends/backend.h"
#include "backends/graph_update.h"
#include "backends/memory_pool.h"

namespace culebra {

struct Task {
  std::function<void()> body;
  bool always = false;  // runs on a failed device too: frees and events, which others wait for
};

class HostDevice : public Device {
 public:
  explicit HostDevice(MemoryPool::Source source, uint64_t limit_bytes, bool poison)
      : pool_(source, limit_bytes), poison_(poison) {}
  MemoryPool& memory() { return pool_; }

  std::unique_ptr<Event> create_event() override;
  void* allocate(uint64_t bytes) override;
  void release(void* pointer) override { pool_.release(pointer); }
  void* allocate_host(uint64_t bytes) override { return pool_.allocate_host(bytes); }
  void release_host(void* pointer) override { pool_.release_host(pointer); }
  void memory_stats(cul_memory_stats& out) override { pool_.stats(out); }
  void set_memory_limit(uint64_t bytes) override { pool_.set_limit(bytes); }
  void trim_memory(uint64_t keep_bytes) override { pool_.trim(keep_bytes); }

 protected:
  // Fresh memory has undefined contents.
  virtual void allocated(void* pointer, uint64_t bytes) {
    (void)pointer;
    (void)bytes;
  }

 private:
  MemoryPool pool_;
  bool poison_;
};

class HostStream : public Stream, public GraphUpdater {
 public:
  explicit HostStream(HostDevice& device) : Stream(device), host_device_(device) {}

  // Records the work while a capture is open, submits it otherwise.
  void enqueue(std::function<void()> work) override;
  void enqueue_always(std::function<void()> work) { submit({std::move(work), true}); }
  void copy(void* dst, const void* src, uint64_t bytes) final;
  void fill(void* dst, int byte, uint64_t bytes) final;
  void* allocate(uint64_t bytes) final;
  void release(void* pointer) final;

  void begin_capture() final;
  std::unique_ptr<Graph> end_capture() final;
  void abort_capture() final;
  bool end_capture_into(Graph& graph) final;
  bool capturing() const final { return recording_ != nullptr; }

  // Runs everything up to the task that makes `passed` true; used by another stream that waits for an event.
  virtual void advance_until(const std::function<bool()>& passed) = 0;
  // The same where the stream has no worker and nobody runs its queue; nothing otherwise. Does not wait.
  virtual void try_advance(const std::function<bool()>& passed) { (void)passed; }
  // Empty once the stream is gone.
  std::weak_ptr<HostStream> itself() const { return itself_; }

 protected:
  virtual void submit(Task task) = 0;
  // Runs one task; a failure of it fails the device, and what was queued behind it is dropped.
  void run(const Task& task) noexcept;

 private:
  HostDevice& host_device_;
  std::unique_ptr<std::vector<std::function<void()>>> recording_;
  const std::shared_ptr<HostStream> itself_{this, [](HostStream*) {}};  // owns nothing
};

// Host writes make simt memory initialised; elsewhere there is nobody to tell.
void note_host_write(const Device& device, const void* p, uint64_t bytes);

}  // namespace culebra

// What a backend provides: devices, memory, streams, events, graphs. The C ABI's handles are these objects.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "abi/status.h"

struct CUstream_st;

namespace culebra {

class ThreadPool;
class Device;
class Stream;
class Event;
namespace simt {
struct Queue;
}

// What plans and checks may know of a device.
struct DeviceCaps {
  int32_t backend = CUL_BACKEND_CPU;
  cul_device_id id{};
  int compute_major = 0;
  int compute_minor = 0;
  int multiprocessors = 1;
  int shared_bytes_per_block = 0;
  uint64_t l2_bytes = 0;
  uint64_t memory_bytes = 0;
  std::string name;
  std::string detail;
};

// A recorded sequence of work.
class Graph {
 public:
  explicit Graph(Device& device);
  virtual ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  Device& device() const { return device_; }
  virtual void launch(Stream& stream) = 0;
  virtual uint64_t node_count() const = 0;

  static Graph* from(cul_graph* g) { return reinterpret_cast<Graph*>(g); }
  cul_graph* handle() { return reinterpret_cast<cul_graph*>(this); }

 private:
  Device& device_;
};

class Event {
 public:
  explicit Event(Device& device);
  virtual ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  Device& device() const { return device_; }
  virtual void record(Stream& stream) = 0;
  virtual void wait_on(Stream& stream) = 0;  // the stream waits for this event
  virtual bool passed() = 0;
  virtual void synchronize() = 0;
  virtual double elapsed_ms_until(Event& end) = 0;

  static Event* from(cul_event* e) { return reinterpret_cast<Event*>(e); }
  cul_event* handle() { return reinterpret_cast<cul_event*>(this); }

 private:
  Device& device_;
};

class Stream {
 public:
  explicit Stream(Device& device);
  virtual ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  Device& device() const { return device_; }

  virtual void synchronize() = 0;
  virtual bool idle() = 0;
  virtual void copy(void* dst, const void* src, uint64_t bytes) = 0;
  virtual void fill(void* dst, int byte, uint64_t bytes) = 0;
  virtual void* allocate(uint64_t bytes) = 0;
  virtual void release(void* pointer) = 0;

  virtual void begin_capture() = 0;
  virtual std::unique_ptr<Graph> end_capture() = 0;
  virtual void abort_capture() = 0;
  virtual bool capturing() const = 0;
  // Throws UNSUPPORTED while a capture is open.
  void require_not_capturing(const char* what) const;

  // How a column reaches its backend; each backend overrides its own.
  virtual void enqueue(std::function<void()> task);  // cpu
  virtual ThreadPool& pool();                        // cpu
  virtual CUstream_st* cuda();
  virtual simt::Queue* simt();

  static Stream* from(cul_stream* s) { return reinterpret_cast<Stream*>(s); }
  cul_stream* handle() { return reinterpret_cast<cul_stream*>(this); }

 private:
  Device& device_;
};

class Device {
 public:
  virtual ~Device() = default;
  Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceCaps& caps() const { return caps_; }

  // Makes the device the calling thread's current one, where the backend has such a notion.
  virtual void enter() {}
  virtual std::unique_ptr<Stream> create_stream() = 0;
  virtual std::unique_ptr<Event> create_event() = 0;
  virtual void* allocate(uint64_t bytes) = 0;
  virtual void release(void* pointer) = 0;
  virtual void* allocate_host(uint64_t bytes) = 0;
  virtual void release_host(void* pointer) = 0;
  virtual void memory_stats(cul_memory_stats& out) = 0;
  virtual void set_memory_limit(uint64_t bytes) = 0;
  virtual void trim_memory(uint64_t keep_bytes) = 0;
  virtual void synchronize() {}  // everything queued on every stream; called before the device closes

  // A failed device stays failed; the first reason is kept.
  void fail(const std::string& reason);
  bool failed() const { return failed_; }
  void require_healthy() const;

  // Live streams, events and graphs: a device with some cannot be closed.
  std::atomic<int> children{0};

  static Device* from(cul_device* d) { return reinterpret_cast<Device*>(d); }
  cul_device* handle() { return reinterpret_cast<cul_device*>(this); }

 protected:
  DeviceCaps caps_;

 private:
  std::atomic<bool> failed_{false};
  mutable std::mutex reason_mutex_;
  std::string reason_;
};

// A backend's entry: how many devices it has (or why none), and how to open one.
struct BackendEntry {
  int32_t id;
  const char* name;
  int (*device_count)(std::string* reason);
  std::unique_ptr<Device> (*open)(int index, const cul_device_options& options);
};
// cpu, cuda, simt in the order of their numbers; those not compiled in have a count of 0 and a reason.
const BackendEntry& backend(int32_t id);

namespace cpu {
int device_count(std::string* reason);
std::unique_ptr<Device> open_device(int index, const cul_device_options& options);
}
namespace cuda {
int device_count(std::string* reason);
std::unique_ptr<Device> open_device(int index, const cul_device_options& options);
}
namespace simt {
int device_count(std::string* reason);
std::unique_ptr<Device> open_device(int index, const cul_device_options& options);
}

}  // namespace culebra

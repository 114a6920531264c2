// The functions of culebra.h: each checks its handles, and passes to the backend's objects behind the fence.
#include <cstring>

#include "abi/handles.h"
#include "backends/fault.h"
#include "culebra/copy.h"
#include "culebra/testing.h"

using namespace culebra;

namespace {

Event& event_of(cul_event* e, const char* function) { return *Event::from(need(e, function, "event")); }

template <size_t N>
void copy_text(char (&to)[N], const std::string& from) {
  std::strncpy(to, from.c_str(), N - 1);
  to[N - 1] = 0;
}

// The reasons of cul_backend_devices live as long as the library.
const char* keep_reason(int32_t backend, std::string text) {
  static std::mutex mutex;
  static std::string kept[CUL_BACKEND_COUNT];
  std::lock_guard<std::mutex> lock(mutex);
  if (kept[backend] != text && kept[backend].empty()) kept[backend] = std::move(text);
  return kept[backend].c_str();
}

}  // namespace

extern "C" {

uint32_t cul_abi_version(void) { return CUL_ABI_VERSION; }
const char* cul_version(void) { return CULEBRA_VERSION; }

const char* cul_status_name(cul_status status) {
  static const char* const names[] = {"OK",     "NULL_POINTER", "SHAPE", "DTYPE",         "STRIDE",       "ALIGNMENT", "DEVICE",
                                      "RANGE",  "UNSUPPORTED",  "WORKSPACE", "ARCH",      "OUT_OF_MEMORY", "DEVICE_ERROR",
                                      "INTERNAL"};
  return status >= 0 && status <= CUL_INTERNAL ? names[status] : "UNKNOWN";
}

const char* cul_last_error(void) { return last_call().error.c_str(); }
uint64_t cul_last_workspace_bytes(void) { return last_call().workspace_bytes; }
const char* cul_last_plan(void) { return last_call().plan.c_str(); }

const char* cul_backend_name(int32_t id) {
  const char* name = nullptr;
  (void)fence([&] { name = backend(id).name; });
  return name;
}

cul_status cul_backend_devices(int32_t id, int32_t* count, const char** reason) {
  return fence([&] {
    need(count, "cul_backend_devices", "count");
    need(reason, "cul_backend_devices", "reason");
    std::string text;
    *count = backend(id).device_count(&text);
    *reason = *count ? "" : keep_reason(id, std::move(text));
  });
}

cul_status cul_device_open(int32_t id, int32_t index, const cul_device_options* options, cul_device** out) {
  return fence([&] {
    need(out, "cul_device_open", "out");
    *out = nullptr;
    cul_device_options defaults{};
    defaults.struct_size = sizeof defaults;
    if (!options) options = &defaults;
    check_size(options, "cul_device_open");
    std::string reason;
    const int count = backend(id).device_count(&reason);
    if (count == 0) refuse(CUL_UNSUPPORTED, "%s is not available: %s", backend(id).name, reason.c_str());
    if (index < 0 || index >= count)
      refuse(CUL_RANGE, "there is no device %s:%d; %s has %d", backend(id).name, index, backend(id).name, count);
    *out = backend(id).open(index, *options).release()->handle();
  });
}

cul_status cul_device_close(cul_device* d) {
  return fence([&] {
    Device* device = Device::from(need(d, "cul_device_close", "device"));
    if (device->children != 0)
      refuse(CUL_UNSUPPORTED, "cul_device_close: %d streams, events, graphs, modules or communicators of the device are still alive",
             device->children.load());
    const std::unique_ptr<Device> gone(device);
    if (!gone->failed()) gone->synchronize();
  });
}

cul_status cul_device_get_info(cul_device* d, cul_device_info* out) {
  return fence([&] {
    need(d, "cul_device_get_info", "device");
    check_size(need(out, "cul_device_get_info", "out"), "cul_device_get_info");
    const DeviceCaps& c = Device::from(d)->caps();
    *out = {};
    out->struct_size = sizeof *out;
    out->backend = c.backend;
    out->id = c.id;
    out->compute_major = c.compute_major;
    out->compute_minor = c.compute_minor;
    out->multiprocessors = c.multiprocessors;
    out->shared_bytes_per_block = c.shared_bytes_per_block;
    out->l2_bytes = c.l2_bytes;
    out->memory_bytes = c.memory_bytes;
    copy_text(out->name, c.name);
    copy_text(out->detail, c.detail);
  });
}

// ------------------------------------------------------------------------------------------------------- memory

cul_status cul_memory_alloc(cul_device* d, uint64_t bytes, void** out) {
  return fence([&] { *need(out, "cul_memory_alloc", "out") = device_of(d, "cul_memory_alloc").allocate(bytes); });
}
cul_status cul_memory_free(cul_device* d, void* pointer) {
  return fence([&] {  // memory of a failed device can still be given back
    if (pointer) Device::from(need(d, "cul_memory_free", "device"))->release(pointer);
  });
}
cul_status cul_memory_alloc_async(cul_stream* s, uint64_t bytes, void** out) {
  return fence([&] { *need(out, "cul_memory_alloc_async", "out") = stream_of(s, "cul_memory_alloc_async").allocate(bytes); });
}
cul_status cul_memory_free_async(cul_stream* s, void* pointer) {
  return fence([&] {
    if (pointer) Stream::from(need(s, "cul_memory_free_async", "stream"))->release(pointer);
  });
}
cul_status cul_host_alloc(cul_device* d, uint64_t bytes, void** out) {
  return fence([&] { *need(out, "cul_host_alloc", "out") = device_of(d, "cul_host_alloc").allocate_host(bytes); });
}
cul_status cul_host_free(cul_device* d, void* pointer) {
  return fence([&] {
    if (pointer) Device::from(need(d, "cul_host_free", "device"))->release_host(pointer);
  });
}
cul_status cul_memory_get_stats(cul_device* d, cul_memory_stats* out) {
  return fence([&] {
    check_size(need(out, "cul_memory_get_stats", "out"), "cul_memory_get_stats");
    Device::from(need(d, "cul_memory_get_stats", "device"))->memory_stats(*out);
  });
}
cul_status cul_memory_set_limit(cul_device* d, uint64_t limit_bytes) {
  return fence([&] { device_of(d, "cul_memory_set_limit").set_memory_limit(limit_bytes); });
}
cul_status cul_memory_trim(cul_device* d, uint64_t keep_bytes) {
  return fence([&] { device_of(d, "cul_memory_trim").trim_memory(keep_bytes); });
}

cul_status cul_copy(cul_stream* s, void* dst, const void* src, uint64_t bytes) {
  return fence([&] {
    Stream& stream = stream_of(s, "cul_copy");
    if (bytes == 0) return;
    stream.copy(need(dst, "cul_copy", "dst"), need(src, "cul_copy", "src"), bytes);
  });
}
cul_status cul_copy_and_wait(cul_stream* s, void* dst, const void* src, uint64_t bytes) {
  return fence([&] {
    Stream& stream = stream_of(s, "cul_copy_and_wait");
    stream.require_not_capturing("a copy that waits");
    if (bytes != 0) stream.copy(need(dst, "cul_copy_and_wait", "dst"), need(src, "cul_copy_and_wait", "src"), bytes);
    stream.synchronize();
  });
}
cul_status cul_fill(cul_stream* s, void* dst, int32_t byte, uint64_t bytes) {
  return fence([&] {
    Stream& stream = stream_of(s, "cul_fill");
    if (bytes == 0) return;
    stream.fill(need(dst, "cul_fill", "dst"), byte, bytes);
  });
}

// ----------------------------------------------------------------------------------------------- streams, events

cul_status cul_stream_create(cul_device* d, cul_stream** out) {
  return fence([&] { *need(out, "cul_stream_create", "out") = device_of(d, "cul_stream_create").create_stream().release()->handle(); });
}
cul_status cul_stream_destroy(cul_stream* s) {
  return fence([&] {
    const std::unique_ptr<Stream> stream(Stream::from(need(s, "cul_stream_destroy", "stream")));
    stream->abort_capture();
    stream->synchronize();
  });
}
cul_status cul_stream_synchronize(cul_stream* s) {
  return fence([&] { stream_of(s, "cul_stream_synchronize").synchronize(); });
}
cul_status cul_stream_query(cul_stream* s, int32_t* done) {
  return fence([&] { *need(done, "cul_stream_query", "done") = stream_of(s, "cul_stream_query").idle(); });
}
cul_status cul_stream_wait_event(cul_stream* s, cul_event* e) {
  return fence([&] {
    Stream& stream = stream_of(s, "cul_stream_wait_event");
    Event& event = event_of(e, "cul_stream_wait_event");
    same_device(stream.device(), event.device(), "cul_stream_wait_event");
    stream.require_not_capturing("waiting for an event");
    event.wait_on(stream);
  });
}

cul_status cul_event_create(cul_device* d, cul_event** out) {
  return fence([&] { *need(out, "cul_event_create", "out") = device_of(d, "cul_event_create").create_event().release()->handle(); });
}
cul_status cul_event_destroy(cul_event* e) {
  return fence([&] { delete &event_of(e, "cul_event_destroy"); });
}
cul_status cul_event_record(cul_event* e, cul_stream* s) {
  return fence([&] {
    Event& event = event_of(e, "cul_event_record");
    Stream& stream = stream_of(s, "cul_event_record");
    same_device(stream.device(), event.device(), "cul_event_record");
    stream.require_not_capturing("recording an event");
    event.record(stream);
  });
}
cul_status cul_event_query(cul_event* e, int32_t* done) {
  return fence([&] {
    Event& event = event_of(e, "cul_event_query");
    event.device().require_healthy();
    *need(done, "cul_event_query", "done") = event.passed();
  });
}
cul_status cul_event_synchronize(cul_event* e) {
  return fence([&] { event_of(e, "cul_event_synchronize").synchronize(); });
}
cul_status cul_event_elapsed_ms(cul_event* start, cul_event* end, double* out) {
  return fence([&] {
    Event &a = event_of(start, "cul_event_elapsed_ms"), &b = event_of(end, "cul_event_elapsed_ms");
    same_device(a.device(), b.device(), "cul_event_elapsed_ms");
    *need(out, "cul_event_elapsed_ms", "out") = a.elapsed_ms_until(b);
  });
}

// ------------------------------------------------------------------------------------------------------- graphs

cul_status cul_graph_begin_capture(cul_stream* s) {
  return fence([&] { stream_of(s, "cul_graph_begin_capture").begin_capture(); });
}
cul_status cul_graph_end_capture(cul_stream* s, cul_graph** out) {
  return fence([&] { *need(out, "cul_graph_end_capture", "out") = stream_of(s, "cul_graph_end_capture").end_capture().release()->handle(); });
}
cul_status cul_graph_abort_capture(cul_stream* s) {
  return fence([&] { Stream::from(need(s, "cul_graph_abort_capture", "stream"))->abort_capture(); });
}
cul_status cul_graph_launch(cul_graph* g, cul_stream* s) {
  return fence([&] {
    Graph& graph = *Graph::from(need(g, "cul_graph_launch", "graph"));
    Stream& stream = stream_of(s, "cul_graph_launch");
    same_device(stream.device(), graph.device(), "cul_graph_launch");
    stream.require_not_capturing("launching a graph");
    graph.launch(stream);
  });
}
cul_status cul_graph_node_count(cul_graph* g, uint64_t* out) {
  return fence([&] { *need(out, "cul_graph_node_count", "out") = Graph::from(need(g, "cul_graph_node_count", "graph"))->node_count(); });
}
cul_status cul_graph_destroy(cul_graph* g) {
  return fence([&] { delete Graph::from(need(g, "cul_graph_destroy", "graph")); });
}

// ------------------------------------------------------------------------------------------------------- testing

void cul_testing_fail_after(int64_t calls) { fault::countdown = calls; }

}  // extern "C"

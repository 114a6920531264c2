#include "backends/simt/emulator/site.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#if CULEBRA_SIMT_BACKTRACE
#include <backtrace.h>
#endif

namespace culebra::simt {
namespace {

const char* base_name(const char* path) {
  const char* slash = path ? std::strrchr(path, '/') : nullptr;
  return slash ? slash + 1 : path ? path : "?";
}

#if CULEBRA_SIMT_BACKTRACE
// libbacktrace comes with the compiler and reads the debug information of the loaded modules in this process.
void ignore_error(void*, const char*, int) {}

struct Line {
  std::string first, kernel;
};

// Frames arrive from the innermost inlined function outwards; the first outside the device layer and the system's headers is the
// line that a kernel's author wrote.
int take_frame(void* data, uintptr_t, const char* file, int line, const char*) {
  if (!file) return 0;
  auto& found = *static_cast<Line*>(data);
  const std::string text = std::string(base_name(file)) + ":" + std::to_string(line);
  if (found.first.empty()) found.first = text;
  const bool library =
      std::strstr(file, "/native/device/") || std::strstr(file, "/simt/emulator/") || !std::strncmp(file, "/usr/", 5);
  if (library) return 0;
  found.kernel = text;
  return 1;
}

std::string line_of(const void* pc) {
  static backtrace_state* const state = backtrace_create_state(nullptr, 1, ignore_error, nullptr);
  Line line;
  if (state) backtrace_pcinfo(state, reinterpret_cast<uintptr_t>(pc) - 1, take_frame, ignore_error, &line);
  return line.kernel.empty() ? line.first : line.kernel;
}
#else
std::string line_of(const void*) { return {}; }
#endif

std::string program_counter(const void* pc) {
  std::string text = line_of(pc);
  if (!text.empty()) return text;
  Dl_info info{};
  if (!dladdr(pc, &info) || !info.dli_fname) return "?";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "+0x%zx",
                static_cast<const char*>(pc) - static_cast<const char*>(info.dli_fbase) - size_t{1});
  text = std::string(base_name(info.dli_fname)) + buffer;
  if (info.dli_sname) text += std::string(" (") + info.dli_sname + ")";
  return text;
}

template <class F>
const char* interned(const void* place, Op op, F&& text) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, Op>, std::string> texts;
  std::lock_guard lock(mutex);
  const auto [it, added] = texts.try_emplace({place, op});
  if (added) it->second = text();
  return it->second.c_str();
}

}  // namespace

const char* name(Op op) {
  switch (op) {
    case Op::load: return "load";
    case Op::store: return "store";
    case Op::memory_function: return "memory function";
    case Op::none: return "kernel";
    case Op::launch: return "launch";
    case Op::shared_variable: return "shared variable";
    case Op::shared_pointer: return "shared address";
    case Op::syncthreads: return "__syncthreads";
    case Op::syncthreads_count: return "__syncthreads_count";
    case Op::syncthreads_and: return "__syncthreads_and";
    case Op::syncthreads_or: return "__syncthreads_or";
    case Op::named_barrier_sync: return "named barrier sync";
    case Op::named_barrier_arrive: return "named barrier arrive";
    case Op::syncwarp: return "__syncwarp";
    case Op::shuffle_index: return "__shfl_sync";
    case Op::shuffle_up: return "__shfl_up_sync";
    case Op::shuffle_down: return "__shfl_down_sync";
    case Op::shuffle_xor: return "__shfl_xor_sync";
    case Op::vote: return "warp vote";
    case Op::match_any: return "__match_any_sync";
    case Op::match_all: return "__match_all_sync";
    case Op::reduce: return "warp reduce";
    case Op::activemask: return "__activemask";
    case Op::ldmatrix: return "ldmatrix";
    case Op::stmatrix: return "stmatrix";
    case Op::mma_f16: return "mma.m16n8k16.f16";
    case Op::mma_bf16: return "mma.m16n8k16.bf16";
    case Op::mma_s8: return "mma.m16n8k32.s8";
    case Op::mma_e4m3: return "mma.m16n8k32.e4m3";
    case Op::mma_sparse_f16: return "mma.sp.m16n8k32.f16";
    case Op::mma_sparse_bf16: return "mma.sp.m16n8k32.bf16";
    case Op::cp_async: return "cp.async";
    case Op::cp_async_wait: return "cp.async.wait_group";
    case Op::mbarrier_init: return "mbarrier.init";
    case Op::mbarrier_arrive: return "mbarrier.arrive";
    case Op::mbarrier_wait: return "mbarrier.try_wait";
    case Op::bulk_copy: return "cp.async.bulk";
    case Op::tensor_copy: return "cp.async.bulk.tensor";
    case Op::wgmma: return "wgmma.mma_async";
    case Op::wgmma_fence: return "wgmma.fence";
    case Op::wgmma_commit: return "wgmma.commit_group";
    case Op::wgmma_wait: return "wgmma.wait_group";
    case Op::reallocate_registers: return "setmaxnreg";
    case Op::cluster_arrive: return "barrier.cluster.arrive";
    case Op::cluster_wait: return "barrier.cluster.wait";
    case Op::cluster_address: return "mapa";
    case Op::read_cluster: return "ld.shared::cluster";
    case Op::vector_access: return "vector access";
    case Op::atomic: return "atomic";
    case Op::load_acquire: return "ld.acquire";
    case Op::store_release: return "st.release";
    case Op::reduce_release: return "red.release";
    case Op::spin_wait: return "spin wait";
  }
  return "?";
}

const char* Site::where() const {
  if (!place_) return "?";
  return interned(place_, Op::none, [&] {
    return hooked() ? program_counter(place_)
                    : std::string(base_name(here().file_name())) + ":" + std::to_string(here().line());
  });
}

const char* Site::describe() const {
  const char* place = where();
  return interned(place_, op_ == Op::none ? Op::launch : op_, [&] { return std::string(name(op_)) + " at " + place; });
}

bool Site::same_place(const Site& other) const {
  if (op_ != other.op_) return false;
  if (place_ == other.place_) return true;
  if (hooked() || !place_ || !other.place_) return false;
  return here().line() == other.here().line() && here().column() == other.here().column() &&
         !std::strcmp(here().file_name(), other.here().file_name());
}

}  // namespace culebra::simt

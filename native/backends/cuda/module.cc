#include "backends/cuda/module.h"

#include <algorithm>
#include <array>

#include "backends/fault.h"

namespace culebra::cuda {
namespace {

constexpr size_t kMaxParameters = 256;
constexpr int kSharedWithoutOptIn = 48 << 10;
constexpr size_t kLogBytes = 16 << 10;
constexpr uint32_t kPortableClusterBlocks = 8;

// Errors of one call; after any other the driver refuses all further work.
bool recoverable(Result r) {
  switch (r) {
    case kInvalidValue:
    case kInvalidImage:
    case kNoBinaryForGpu:
    case kInvalidPtx:
    case kJitCompilerNotFound:
    case kUnsupportedPtxVersion:
    case kJitCompilationDisabled:
    case kInvalidSource:
    case kNotFound:
    case kLaunchOutOfResources:
    case kCooperativeLaunchTooLarge:
    case kNotPermitted:
    case kNotSupported:
    case kInvalidClusterSize: return true;
    default: return r >= kStreamCaptureFirst && r <= kStreamCaptureLast;
  }
}

cul_status status_of(Result r) {
  switch (r) {
    case kInvalidImage:
    case kInvalidPtx:
    case kInvalidSource: return CUL_RANGE;
    case kNoBinaryForGpu: return CUL_ARCH;
    default: return CUL_UNSUPPORTED;
  }
}

// Every driver call goes through here: tests make any of them fail.
template <class Function, class... Arguments>
Result call(Function function, Arguments... arguments) {
  return fault::strikes() ? kOutOfMemory : function(arguments...);
}

std::string extents(uint32_t x, uint32_t y, uint32_t z) { return format("[%u, %u, %u]", x, y, z); }

}  // namespace

ModuleHost& ModuleHost::of(Device& device) {
  if (auto* host = dynamic_cast<ModuleHost*>(&device)) return *host;
  refuse(CUL_UNSUPPORTED, "%s has no modules: they are compiled for GPUs; open a cuda device", device.caps().name.c_str());
}

void check_launch(const DeviceCaps& caps, const std::string& kernel, const cul_kernel_info& info, const cul_launch_args& a) {
  const char* name = kernel.c_str();
  // Texts are made for a refusal alone: this is on the way of every launch.
  const auto grid = [&] { return extents(a.grid_x, a.grid_y, a.grid_z); };
  const auto block = [&] { return extents(a.block_x, a.block_y, a.block_z); };
  const auto cluster = [&] { return extents(a.cluster_x, a.cluster_y, a.cluster_z); };
  if (!a.grid_x || !a.grid_y || !a.grid_z || a.grid_x > INT32_MAX || a.grid_y > 65535 || a.grid_z > 65535)
    refuse(CUL_RANGE, "%s: the grid is %s; it must be at least 1 block each way and at most [2147483647, 65535, 65535]", name,
           grid().c_str());
  if (!a.block_x || !a.block_y || !a.block_z || a.block_x > 1024 || a.block_y > 1024 || a.block_z > 64)
    refuse(CUL_RANGE, "%s: the block is %s; it must be at least 1 thread each way and at most [1024, 1024, 64]", name,
           block().c_str());
  if (uint64_t{a.block_x} * a.block_y * a.block_z > static_cast<uint64_t>(info.max_threads_per_block))
    refuse(CUL_RANGE, "%s: the block is %s; this kernel takes at most %d threads (it uses %d registers each)", name,
           block().c_str(), info.max_threads_per_block, info.registers);
  if (a.shared_bytes > static_cast<uint32_t>(info.max_dynamic_shared_bytes))
    refuse(CUL_RANGE, "%s: %u bytes of dynamic shared memory; with the kernel's own %d, %s has room for %d", name,
           a.shared_bytes, info.static_shared_bytes, caps.name.c_str(), info.max_dynamic_shared_bytes);
  if (a.flags & ~static_cast<uint32_t>(CUL_LAUNCH_COOPERATIVE | CUL_LAUNCH_DEPENDENT))
    refuse(CUL_RANGE, "%s: flags are 0x%x; known are 1 (cooperative) and 2 (dependent)", name, a.flags);
  if ((a.flags & CUL_LAUNCH_DEPENDENT) && caps.compute_major < 9)
    refuse(CUL_ARCH, "%s: programmatic dependent launch needs compute capability 9.0; %s has %d.%d", name, caps.name.c_str(),
           caps.compute_major, caps.compute_minor);
  if (a.cluster_x || a.cluster_y || a.cluster_z) {
    if (caps.compute_major < 9)
      refuse(CUL_ARCH, "%s: a cluster of %s needs compute capability 9.0; %s has %d.%d", name, cluster().c_str(),
             caps.name.c_str(), caps.compute_major, caps.compute_minor);
    if (!a.cluster_x || !a.cluster_y || !a.cluster_z ||
        uint64_t{a.cluster_x} * a.cluster_y * a.cluster_z > kPortableClusterBlocks)
      refuse(CUL_RANGE, "%s: the cluster is %s; it must have 1 to %u blocks", name, cluster().c_str(), kPortableClusterBlocks);
    if (a.grid_x % a.cluster_x || a.grid_y % a.cluster_y || a.grid_z % a.cluster_z)
      refuse(CUL_RANGE, "%s: the grid is %s; it must be a multiple of the cluster, %s", name, grid().c_str(), cluster().c_str());
  }
  if (a.parameter_bytes != static_cast<uint64_t>(info.parameter_bytes))
    refuse(CUL_RANGE, "%s: the parameters have %llu bytes; the kernel's %d take %d", name,
           static_cast<unsigned long long>(a.parameter_bytes), info.parameter_count, info.parameter_bytes);
  if (a.parameter_bytes && !a.parameters) refuse(CUL_NULL_POINTER, "%s: parameters is null", name);
}

// ------------------------------------------------------------------------------------------------------ kernel

Kernel::Kernel(Module& module, CUfunc_st* function, std::string name)
    : module_(module), function_(function), name_(std::move(name)) {
  const Driver& driver = module.driver();
  for (;;) {
    size_t offset = 0, bytes = 0;
    const Result r = call(driver.cuFuncGetParamInfo, function_, parameters_.size(), &offset, &bytes);
    if (r == kInvalidValue) break;  // past the last one
    module.check(r, "cuFuncGetParamInfo", name_);
    if (parameters_.size() == kMaxParameters)
      refuse(CUL_UNSUPPORTED, "%s has more than %zu parameters", name_.c_str(), kMaxParameters);
    parameters_.push_back({static_cast<int32_t>(offset), static_cast<int32_t>(bytes)});
  }
  info_.struct_size = sizeof info_;
  info_.max_threads_per_block = attribute(kMaxThreadsPerBlock);
  info_.registers = attribute(kRegisters);
  info_.local_bytes = attribute(kLocalBytes);
  info_.static_shared_bytes = attribute(kStaticSharedBytes);
  info_.max_dynamic_shared_bytes = std::max(0, module.device().caps().shared_bytes_per_block - info_.static_shared_bytes);
  info_.parameter_count = static_cast<int32_t>(parameters_.size());
  for (const Parameter& p : parameters_) info_.parameter_bytes = std::max(info_.parameter_bytes, p.offset + p.bytes);
  opted_in_bytes_ = std::max(0, kSharedWithoutOptIn - info_.static_shared_bytes);
}

int Kernel::attribute(FunctionAttribute id) const {
  int value = 0;
  module_.check(call(module_.driver().cuFuncGetAttribute, &value, id, function_), "cuFuncGetAttribute", name_);
  return value;
}

void Kernel::check(const cul_launch_args& args) const { check_launch(module_.device().caps(), name_, info_, args); }

void Kernel::opt_in(int shared_bytes) {
  if (shared_bytes <= opted_in_bytes_.load(std::memory_order_relaxed)) return;
  std::lock_guard<std::mutex> lock(mutex_);
  if (shared_bytes <= opted_in_bytes_) return;
  module_.check(call(module_.driver().cuFuncSetAttribute, function_, kMaxDynamicSharedBytes, shared_bytes),
                "cuFuncSetAttribute", format("%s with %d bytes of shared memory", name_.c_str(), shared_bytes));
  opted_in_bytes_ = shared_bytes;
}

void Kernel::launch(const cul_launch_args& a, CUstream_st* stream) {
  opt_in(static_cast<int>(a.shared_bytes));
  std::array<LaunchAttribute, 3> attributes{};
  unsigned count = 0;
  const auto add = [&](LaunchAttributeId id) -> LaunchAttribute& {
    attributes[count].id = id;
    return attributes[count++];
  };
  if (a.cluster_x) add(kClusterDimension).value.cluster = {a.cluster_x, a.cluster_y, a.cluster_z};
  if (a.flags & CUL_LAUNCH_COOPERATIVE) add(kCooperative).value.flag = 1;
  if (a.flags & CUL_LAUNCH_DEPENDENT) add(kProgrammaticStreamSerialization).value.flag = 1;

  std::array<void*, kMaxParameters> pointers;  // the driver copies what they point to before it returns
  char* block = const_cast<char*>(static_cast<const char*>(a.parameters));
  for (size_t i = 0; i < parameters_.size(); ++i) pointers[i] = block + parameters_[i].offset;
  const LaunchConfig config{a.grid_x,  a.grid_y,       a.grid_z, a.block_x,         a.block_y,
                            a.block_z, a.shared_bytes, stream,   attributes.data(), count};
  module_.check(call(module_.driver().cuLaunchKernelEx, &config, function_, pointers.data(), nullptr), "cuLaunchKernelEx",
                name_);
}

// ------------------------------------------------------------------------------------------------------ module

Module::Module(Device& device, const void* image, uint64_t bytes, std::string log)
    : device_(device), host_(ModuleHost::of(device)), driver_(host_.driver()), log_(std::move(log)) {
  const std::string checked = checked_image(image, bytes);
  std::string info(kLogBytes, 0), error(kLogBytes, 0);
  std::array<JitOption, 4> names{kJitInfoLog, kJitInfoLogBytes, kJitErrorLog, kJitErrorLogBytes};
  std::array<void*, 4> values{info.data(), reinterpret_cast<void*>(kLogBytes), error.data(), reinterpret_cast<void*>(kLogBytes)};
  const Result r = call(driver_.cuModuleLoadDataEx, &module_, static_cast<const void*>(checked.c_str()),
                        static_cast<unsigned>(names.size()), names.data(), values.data());
  check(r, "cuModuleLoadDataEx", error.c_str());
  log_ += info.c_str();
  ++device_.children;
}

Module::~Module() {
  try {
    device_.enter();
  } catch (const std::exception&) {
    // A failed device: what it held is gone with its context.
  }
  (void)driver_.cuModuleUnload(module_);
  --device_.children;
}

void Module::check(Result r, const char* what, const std::string& detail) const {
  if (r == kSuccess) return;
  const char *name = nullptr, *text = nullptr;
  if (driver_.cuGetErrorName(r, &name) != kSuccess || !name) name = "unknown error";
  if (driver_.cuGetErrorString(r, &text) != kSuccess || !text) text = "";
  const std::string message = format("%s: %s (%s, %d)%s%s", what, text, name, r, detail.empty() ? "" : ": ", detail.c_str());
  if (r == kOutOfMemory) throw Refusal(CUL_OUT_OF_MEMORY, message);
  if (recoverable(r)) throw Refusal(status_of(r), message);
  device_.fail(message);
  throw DeviceError(message);
}

Kernel& Module::kernel(const std::string& name) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (const auto it = kernels_.find(name); it != kernels_.end()) return *it->second;
  CUfunc_st* function = nullptr;
  const Result r = call(driver_.cuModuleGetFunction, &function, module_, name.c_str());
  if (r == kNotFound)
    refuse(CUL_RANGE, "the module has no kernel \"%s\"; it has %s", name.c_str(), kernel_names().c_str());
  check(r, "cuModuleGetFunction", name);
  return *kernels_.emplace(name, std::make_unique<Kernel>(*this, function, name)).first->second;
}

std::string Module::kernel_names() const {
  unsigned count = 0;
  check(call(driver_.cuModuleGetFunctionCount, &count, module_), "cuModuleGetFunctionCount", "");
  std::vector<CUfunc_st*> functions(count);
  check(call(driver_.cuModuleEnumerateFunctions, functions.data(), count, module_), "cuModuleEnumerateFunctions", "");
  std::vector<std::string> names;
  for (CUfunc_st* f : functions) {
    const char* name = nullptr;
    if (driver_.cuFuncGetName(&name, f) == kSuccess && name) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list.empty() ? "none" : list;
}

}  // namespace culebra::cuda

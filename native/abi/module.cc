// The functions of module.h, and those of testing.h that concern its driver.
#include "culebra/module.h"

#include "abi/handles.h"
#include "backends/cuda/module.h"
#include "backends/cuda/nvrtc.h"
#include "culebra/testing.h"

using namespace culebra;

extern "C" {

cul_status cul_module_load(cul_device* d, const void* image, uint64_t bytes, cul_module** out) {
  return fence([&] {
    *need(out, "cul_module_load", "out") = nullptr;
    Device& device = device_of(d, "cul_module_load");
    *out = std::make_unique<cuda::Module>(device, need(image, "cul_module_load", "image"), bytes, "").release()->handle();
  });
}

cul_status cul_module_compile(cul_device* d, const char* source, const char* name, const char* const* options,
                              int32_t option_count, cul_module** out) {
  return fence([&] {
    *need(out, "cul_module_compile", "out") = nullptr;
    Device& device = device_of(d, "cul_module_compile");
    need(source, "cul_module_compile", "source");
    if (option_count < 0) refuse(CUL_RANGE, "cul_module_compile: option_count is %d", option_count);
    if (option_count) need(options, "cul_module_compile", "options");
    std::vector<const char*> list;
    for (int32_t i = 0; i < option_count; ++i) list.push_back(need(options[i], "cul_module_compile", "an option"));
    cuda::Compiled made = cuda::compile(cuda::ModuleHost::of(device).driver(), device.caps(), source, need(name, "cul_module_compile", "name"),
                                        std::move(list));
    *out = std::make_unique<cuda::Module>(device, made.cubin.data(), made.cubin.size(), std::move(made.log)).release()->handle();
  });
}

const char* cul_module_log(cul_module* m) { return m ? cuda::Module::from(m)->log().c_str() : ""; }

cul_status cul_module_unload(cul_module* m) {
  return fence([&] { delete cuda::Module::from(need(m, "cul_module_unload", "module")); });
}

cul_status cul_module_kernel(cul_module* m, const char* name, cul_kernel** out) {
  return fence([&] {
    *need(out, "cul_module_kernel", "out") = nullptr;
    cuda::Module& module = *cuda::Module::from(need(m, "cul_module_kernel", "module"));
    module.device().require_healthy();
    module.device().enter();
    *out = module.kernel(need(name, "cul_module_kernel", "name")).handle();
  });
}

cul_status cul_kernel_get_info(cul_kernel* k, cul_kernel_info* out) {
  return fence([&] {
    const cuda::Kernel& kernel = *cuda::Kernel::from(need(k, "cul_kernel_get_info", "kernel"));
    check_size(need(out, "cul_kernel_get_info", "out"), "cul_kernel_get_info");
    *out = kernel.info();
  });
}

cul_status cul_kernel_parameter(cul_kernel* k, int32_t index, int32_t* offset_bytes, int32_t* bytes) {
  return fence([&] {
    const cuda::Kernel& kernel = *cuda::Kernel::from(need(k, "cul_kernel_parameter", "kernel"));
    need(offset_bytes, "cul_kernel_parameter", "offset_bytes");
    need(bytes, "cul_kernel_parameter", "bytes");
    const auto& parameters = kernel.parameters();
    if (index < 0 || static_cast<size_t>(index) >= parameters.size())
      refuse(CUL_RANGE, "%s has no parameter %d; it has %zu", kernel.name().c_str(), index, parameters.size());
    *offset_bytes = parameters[static_cast<size_t>(index)].offset;
    *bytes = parameters[static_cast<size_t>(index)].bytes;
  });
}

cul_status cul_kernel_launch(cul_stream* s, cul_kernel* k, const cul_launch_args* args) {
  return fence([&] {
    Stream& stream = stream_of(s, "cul_kernel_launch");
    cuda::Kernel& kernel = *cuda::Kernel::from(need(k, "cul_kernel_launch", "kernel"));
    check_size(need(args, "cul_kernel_launch", "args"), "cul_kernel_launch");
    same_device(stream.device(), kernel.module().device(), "cul_kernel_launch");
    kernel.check(*args);
    kernel.module().host().launch(stream, kernel, *args);
  });
}

cul_status cul_testing_use_driver(const char* path) {
  return fence([&] { cuda::use_test_driver(path); });
}

const char* cul_testing_driver_log(void) {
  const char* log = "";
  (void)fence([&] { log = cuda::test_driver_log(); });
  return log;
}

}  // extern "C"

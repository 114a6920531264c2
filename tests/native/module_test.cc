// Modules, kernels and launches: through the test driver on simt, and through the real one where there is a GPU.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "backends/cuda/module.h"
#include "backends/cuda/nvrtc.h"
#include "culebra/module.h"
#include "culebra/testing.h"
#include "fake_driver/fake_driver.h"

namespace culebra {
namespace {

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  std::stringstream all;
  all << file.rdbuf();
  return all.str();
}
const std::string& axpy_ptx() {
  static const std::string text = read(CULEBRA_AXPY_PTX);
  return text;
}

// What the test driver exports beside the driver's own functions.
template <class F>
F* fake(const char* name) {
  static void* library = dlopen(CULEBRA_FAKE_DRIVER, RTLD_NOW);
  return reinterpret_cast<F*>(dlsym(library, name));
}
int live_modules() { return fake<int()>("fake_driver_modules")(); }
void fail_driver_after(int calls, int error) { fake<void(int, int)>("fake_driver_fail_after")(calls, error); }

bool has(const char* text, const char* part) { return std::string(text).find(part) != std::string::npos; }
#define REFUSED(call, status, part)                         \
  do {                                                      \
    EXPECT_EQ((call), status) << cul_last_error();          \
    EXPECT_TRUE(has(cul_last_error(), part)) << cul_last_error(); \
  } while (0)

class ModuleTest : public ::testing::TestWithParam<int32_t> {
 protected:
  void SetUp() override {
    if (on_simt()) {
      ASSERT_EQ(cul_testing_use_driver(CULEBRA_FAKE_DRIVER), CUL_OK) << cul_last_error();
    }
    open();
    (void)log();
  }
  void TearDown() override {
    cul_testing_fail_after(-1);
    if (!device) return;
    if (on_simt()) fail_driver_after(-1, 0);
    close();
    if (on_simt()) {
      EXPECT_EQ(live_modules(), 0);
    }
  }
  void open() {
    ASSERT_EQ(cul_device_open(GetParam(), 0, nullptr, &device), CUL_OK) << cul_last_error();
    ASSERT_EQ(cul_stream_create(device, &stream), CUL_OK);
  }
  void close() {
    cul_stream_destroy(stream);
    EXPECT_EQ(cul_device_close(device), CUL_OK) << cul_last_error();
  }
  bool on_simt() const { return GetParam() == CUL_BACKEND_SIMT; }
  std::string log() { return on_simt() ? cul_testing_driver_log() : ""; }

  cul_module* load(const std::string& image) {
    cul_module* module = nullptr;
    EXPECT_EQ(cul_module_load(device, image.data(), image.size(), &module), CUL_OK) << cul_last_error();
    return module;
  }
  cul_kernel* axpy(cul_module* module) {
    cul_kernel* kernel = nullptr;
    EXPECT_EQ(cul_module_kernel(module, "axpy", &kernel), CUL_OK) << cul_last_error();
    return kernel;
  }

  struct AxpyParameters {
    void* y;
    void* x;
    int32_t n;
    float a;
  };
  cul_launch_args args(const AxpyParameters& p) {
    return {sizeof(cul_launch_args), 0, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0, &p, sizeof p};
  }

  cul_device* device = nullptr;
  cul_stream* stream = nullptr;
};

TEST_P(ModuleTest, aKernelRunsInStreamOrderAndInGraphs) {
  cul_module* module = load(axpy_ptx());
  cul_kernel* kernel = axpy(module);
  std::vector<float> host = {1, 2, 3, 0.5f, 0.25f, 0.125f}, back(3);
  void* memory = nullptr;
  ASSERT_EQ(cul_memory_alloc_async(stream, 24, &memory), CUL_OK);
  ASSERT_EQ(cul_copy(stream, memory, host.data(), 24), CUL_OK);
  AxpyParameters p{memory, static_cast<float*>(memory) + 3, 3, 2};
  cul_launch_args a = args(p);
  ASSERT_EQ(cul_kernel_launch(stream, kernel, &a), CUL_OK) << cul_last_error();
  ASSERT_EQ(cul_copy(stream, back.data(), memory, 12), CUL_OK);
  ASSERT_EQ(cul_stream_synchronize(stream), CUL_OK);
  EXPECT_EQ(back, (std::vector<float>{2, 2.5f, 3.25f}));

  ASSERT_EQ(cul_graph_begin_capture(stream), CUL_OK);
  ASSERT_EQ(cul_kernel_launch(stream, kernel, &a), CUL_OK) << cul_last_error();
  p = {};  // the graph has its own copy
  cul_graph* graph = nullptr;
  ASSERT_EQ(cul_graph_end_capture(stream, &graph), CUL_OK);
  for (int i = 0; i < 2; ++i) ASSERT_EQ(cul_graph_launch(graph, stream), CUL_OK);
  ASSERT_EQ(cul_copy(stream, back.data(), memory, 12), CUL_OK);
  ASSERT_EQ(cul_stream_synchronize(stream), CUL_OK);
  EXPECT_EQ(back, (std::vector<float>{4, 3.5f, 3.75f}));
  ASSERT_EQ(cul_graph_destroy(graph), CUL_OK);
  ASSERT_EQ(cul_memory_free_async(stream, memory), CUL_OK);
  EXPECT_EQ(cul_device_close(device), CUL_UNSUPPORTED) << "a module is alive";
  ASSERT_EQ(cul_module_unload(module), CUL_OK);
}

TEST_P(ModuleTest, aKernelTellsItsParameters) {
  cul_module* module = load(axpy_ptx() + std::string(1, '\0'));
  EXPECT_EQ(axpy(module), axpy(module));
  cul_kernel_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(cul_kernel_get_info(axpy(module), &info), CUL_OK);
  EXPECT_EQ(info.parameter_count, 4);
  EXPECT_EQ(info.parameter_bytes, 24);
  EXPECT_GT(info.max_threads_per_block, 0);
  EXPECT_GT(info.max_dynamic_shared_bytes, 48 << 10);
  int32_t offset = 0, bytes = 0;
  ASSERT_EQ(cul_kernel_parameter(axpy(module), 3, &offset, &bytes), CUL_OK);
  EXPECT_EQ(offset, 20);
  EXPECT_EQ(bytes, 4);
  REFUSED(cul_kernel_parameter(axpy(module), 4, &offset, &bytes), CUL_RANGE, "no parameter 4; it has 4");
  cul_kernel* other = nullptr;
  REFUSED(cul_module_kernel(module, "saxpy", &other), CUL_RANGE, "no kernel \"saxpy\"; it has axpy");
  ASSERT_EQ(cul_module_unload(module), CUL_OK);
}

TEST_P(ModuleTest, badImagesAreRefused) {
  cul_module* module = nullptr;
  const std::string cubin = read(std::filesystem::path(CULEBRA_TRITON_ARTEFACTS) / "softmax/softmax.fp16.sm_80.cubin");
  const auto refuse = [&](const std::string& image, cul_status status, const char* part) {
    REFUSED(cul_module_load(device, image.data(), image.size(), &module), status, part);
    EXPECT_EQ(module, nullptr);
  };
  refuse("", CUL_RANGE, "neither a cubin");
  refuse("no image at all", CUL_RANGE, "15 bytes is neither a cubin, nor a fatbin, nor PTX");
  refuse(cubin.substr(0, 40), CUL_RANGE, "cut short");
  refuse(cubin.substr(0, cubin.size() / 2), CUL_RANGE, "cut short");
  refuse(std::string("\x50\xED\x55\xBA\x01\0\x10\0\xFF\0\0\0\0\0\0\0", 16), CUL_RANGE, "fatbin of 16 bytes was cut short");
  std::string wrong = cubin;
  wrong[18] = 62;  // x86-64
  refuse(wrong, CUL_RANGE, "not a 64-bit one for NVIDIA GPUs");
  std::string broken = axpy_ptx();
  broken.replace(broken.find("fma.rn.f32"), 10, "bogus     ");
  refuse(broken, CUL_RANGE, "bogus");
  REFUSED(cul_module_load(device, nullptr, 4, &module), CUL_NULL_POINTER, "image");
  if (on_simt()) {
    refuse(read(std::filesystem::path(CULEBRA_TRITON_ARTEFACTS) / "softmax/softmax.fp16.sm_90.cubin"), CUL_ARCH, "NO_BINARY");
  }
}

TEST_P(ModuleTest, badLaunchesAreRefusedBeforeTheDriver) {
  cul_module* module = load(axpy_ptx());
  cul_kernel* kernel = axpy(module);
  (void)log();
  const AxpyParameters p{};
  const auto refuse = [&](auto change, cul_status status, const char* part) {
    cul_launch_args a = args(p);
    change(a);
    REFUSED(cul_kernel_launch(stream, kernel, &a), status, part);
  };
  using A = cul_launch_args;
  refuse([](A& a) { a.grid_x = 0; }, CUL_RANGE, "the grid is [0, 1, 1]");
  refuse([](A& a) { a.grid_x = 1u << 31; }, CUL_RANGE, "2147483648");
  refuse([](A& a) { a.grid_y = 65536; }, CUL_RANGE, "65536");
  refuse([](A& a) { a.grid_z = 65536; }, CUL_RANGE, "65536");
  refuse([](A& a) { a.block_y = 0; }, CUL_RANGE, "the block is [32, 0, 1]");
  refuse([](A& a) { a.block_x = 1025; }, CUL_RANGE, "1025");
  refuse([](A& a) { a.block_z = 65; }, CUL_RANGE, "65");
  refuse([](A& a) { a.block_x = 1024, a.block_y = 2; }, CUL_RANGE, "at most 1024 threads");
  refuse([](A& a) { a.shared_bytes = 1 << 20; }, CUL_RANGE, "1048576 bytes of dynamic shared memory");
  refuse([](A& a) { a.flags = 8; }, CUL_RANGE, "0x8");
  refuse([](A& a) { a.parameter_bytes = 20; }, CUL_RANGE, "20 bytes; the kernel's 4 take 24");
  refuse([](A& a) { a.parameters = nullptr; }, CUL_NULL_POINTER, "parameters");
  refuse([](A& a) { a.struct_size = 4; }, CUL_RANGE, "struct_size");
  cul_device_info info{};
  info.struct_size = sizeof info;
  ASSERT_EQ(cul_device_get_info(device, &info), CUL_OK);
  if (info.compute_major < 9) {
    refuse([](A& a) { a.cluster_x = a.cluster_y = a.cluster_z = 1; }, CUL_ARCH, "needs compute capability 9.0");
    refuse([](A& a) { a.flags = CUL_LAUNCH_DEPENDENT; }, CUL_ARCH, "needs compute capability 9.0");
  }
  EXPECT_EQ(log(), "");
  ASSERT_EQ(cul_module_unload(module), CUL_OK);
}

// The rules of clusters, on a device that has them.
TEST(LaunchTest, clustersDivideTheGrid) {
  DeviceCaps caps;
  caps.name = "a GPU";
  caps.compute_major = 9;
  cul_kernel_info info{sizeof info, 1024, 32, 0, 0, 227 << 10, 0, 0};
  cul_launch_args a{sizeof a, CUL_LAUNCH_DEPENDENT, 8, 2, 1, 128, 1, 1, 4, 2, 1, 200 << 10, nullptr, 0};
  cuda::check_launch(caps, "k", info, a);
  const auto refused = [&](auto change) {
    cul_launch_args b = a;
    change(b);
    EXPECT_THROW(cuda::check_launch(caps, "k", info, b), Refusal);
  };
  refused([](cul_launch_args& b) { b.grid_x = 6; });
  refused([](cul_launch_args& b) { b.cluster_z = 0; });
  refused([](cul_launch_args& b) { b.cluster_x = 8, b.grid_x = 8; });
}

TEST_P(ModuleTest, sharedMemoryAbove48KBIsOptedInOnce) {
  cul_module* module = load(axpy_ptx());
  float memory[2] = {};
  const AxpyParameters p{memory, memory, 0, 0};
  cul_launch_args a = args(p);
  for (uint32_t bytes : {49152u, 100000u, 60000u, 163840u}) {
    a.shared_bytes = bytes;
    ASSERT_EQ(cul_kernel_launch(stream, axpy(module), &a), CUL_OK) << cul_last_error();
  }
  ASSERT_EQ(cul_stream_synchronize(stream), CUL_OK);
  if (on_simt()) {
    const std::string seen = log();
    EXPECT_FALSE(has(seen.c_str(), "cuFuncSetAttribute 8 49152"));
    EXPECT_TRUE(has(seen.c_str(), "cuFuncSetAttribute 8 100000"));
    EXPECT_FALSE(has(seen.c_str(), "cuFuncSetAttribute 8 60000"));
    EXPECT_TRUE(has(seen.c_str(), "cuFuncSetAttribute 8 163840"));
    EXPECT_TRUE(has(seen.c_str(), "grid 1,1,1 block 32,1,1 shared 163840 parameters ")) << seen;
  }
  ASSERT_EQ(cul_module_unload(module), CUL_OK);
}

TEST_P(ModuleTest, kernelsStayOnTheirDevice) {
  cul_device* other = nullptr;
  if (cul_device_open(GetParam(), 1, nullptr, &other) != CUL_OK) return;  // a machine with one GPU
  cul_stream* far = nullptr;
  ASSERT_EQ(cul_stream_create(other, &far), CUL_OK);
  cul_module* module = load(axpy_ptx());
  const AxpyParameters p{};
  const cul_launch_args a = args(p);
  EXPECT_EQ(cul_kernel_launch(far, axpy(module), &a), CUL_DEVICE);
  ASSERT_EQ(cul_module_unload(module), CUL_OK);
  cul_stream_destroy(far);
  EXPECT_EQ(cul_device_close(other), CUL_OK);
}

TEST_P(ModuleTest, anyDriverCallMayFail) {
  float memory[2] = {1, 1};
  const AxpyParameters p{memory, memory, 0, 1};
  const auto session = [&] {
    cul_module* module = nullptr;
    cul_status status = cul_module_load(device, axpy_ptx().data(), axpy_ptx().size(), &module);
    if (status) return status;
    cul_kernel* kernel = nullptr;
    status = cul_module_kernel(module, "axpy", &kernel);
    cul_launch_args a = args(p);
    a.shared_bytes = 64 << 10;
    if (!status) status = cul_kernel_launch(stream, kernel, &a);
    EXPECT_EQ(cul_module_unload(module), CUL_OK);
    return status;
  };
  // Out of memory: the device is unharmed and the next session runs.
  int failures = 0;
  for (int calls = 0; calls < 16; ++calls) {
    cul_testing_fail_after(calls);
    const cul_status status = session();
    cul_testing_fail_after(-1);
    failures += status != CUL_OK;
    EXPECT_TRUE(status == CUL_OK || status == CUL_OUT_OF_MEMORY) << cul_last_error();
    EXPECT_EQ(session(), CUL_OK) << cul_last_error();
  }
  constexpr int kDriverCalls = 13;  // load, function, 5 of parameters, 4 attributes, opt-in, launch
  EXPECT_EQ(failures, kDriverCalls);
  if (!on_simt()) return;
  // What the driver itself answers: a refusal leaves the device usable, an error that it does not recover from does not.
  for (int calls = 0; calls < kDriverCalls; ++calls) {
    fail_driver_after(calls, cuda::kLaunchOutOfResources);
    const cul_status status = session();
    fail_driver_after(-1, 0);
    EXPECT_EQ(status, CUL_UNSUPPORTED) << calls << " " << cul_last_error();
    EXPECT_EQ(session(), CUL_OK) << cul_last_error();
    EXPECT_EQ(live_modules(), 0);
  }
  for (int calls = 0; calls < kDriverCalls; ++calls) {
    fail_driver_after(calls, 700);
    EXPECT_EQ(session(), CUL_DEVICE_ERROR) << calls;
    fail_driver_after(-1, 0);
    EXPECT_EQ(session(), CUL_DEVICE_ERROR) << "it stays failed";
    EXPECT_TRUE(has(cul_last_error(), "CUDA_ERROR_ILLEGAL_ADDRESS")) << cul_last_error();
    EXPECT_EQ(live_modules(), 0);
    close();
    open();
  }
}

TEST_P(ModuleTest, sourceIsCompiledWithItsLogAndArchitecture) {
  if (!on_simt()) return;  // the test compiler alone takes PTX as its source; NvrtcTest has the real one
  cul_module* module = nullptr;
  const char* options[] = {"-DN=4"};
  ASSERT_EQ(cul_module_compile(device, axpy_ptx().c_str(), "axpy.cu", options, 1, &module), CUL_OK) << cul_last_error();
  EXPECT_TRUE(has(cul_module_log(module), "axpy.cu(1): warning"));
  EXPECT_NE(axpy(module), nullptr);
  EXPECT_TRUE(has(log().c_str(), "axpy.cu -DN=4 --gpu-architecture=sm_80\n"));
  ASSERT_EQ(cul_module_unload(module), CUL_OK);
  REFUSED(cul_module_compile(device, "#error no", "bad.cu", nullptr, 0, &module), CUL_RANGE, "bad.cu(1): error: #error directive");
  REFUSED(cul_module_compile(device, "", "bad.cu", nullptr, 1, &module), CUL_NULL_POINTER, "options");
}

// The real compiler; it needs no GPU. Where its library is absent the refusal names it.
TEST(NvrtcTest, compilesForTheDeviceOrSaysWhyNot) {
  const cuda::Driver no_test_driver{};
  DeviceCaps caps;
  caps.compute_major = 9;
  const auto compile = [&](const char* source) { return cuda::compile(no_test_driver, caps, source, "k.cu", {"-DN=4"}); };
  try {
    const cuda::Compiled made = compile("extern \"C\" __global__ void k(float* x) { int unused; x[N] = 1; }");
    EXPECT_EQ(made.cubin, cuda::checked_image(made.cubin.data(), made.cubin.size()));
    EXPECT_EQ(made.cubin.substr(1, 3), "ELF");
    EXPECT_TRUE(has(made.log.c_str(), "k.cu(1): warning")) << made.log;
  } catch (const Refusal& e) {
    EXPECT_EQ(e.status(), CUL_UNSUPPORTED);
    EXPECT_TRUE(has(e.what(), "nvrtc")) << e.what();
    return;
  }
  try {
    compile("extern \"C\" __global__ void k(float* x) { x[N] = nothing; }");
    FAIL() << "it compiled";
  } catch (const Refusal& e) {
    EXPECT_EQ(e.status(), CUL_RANGE);
    EXPECT_TRUE(has(e.what(), "identifier \"nothing\" is undefined")) << e.what();
  }
}

// Every committed cubin of this architecture: the kernel's name is found, and its parameters are read.
TEST_P(ModuleTest, compiledTritonKernelsLoad) {
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(CULEBRA_TRITON_ARTEFACTS)) {
    const std::string name = entry.path().filename();
    if (entry.path().extension() != ".cubin" || name.find("sm_80") == std::string::npos) continue;
    cul_module* module = nullptr;
    const std::string image = read(entry.path());
    const cul_status status = cul_module_load(device, image.data(), image.size(), &module);
    if (!on_simt() && status == CUL_ARCH) continue;
    ASSERT_EQ(status, CUL_OK) << name << cul_last_error();
    cul_kernel* kernel = nullptr;
    ASSERT_EQ(cul_module_kernel(module, name.substr(0, name.find('.')).c_str(), &kernel), CUL_OK) << cul_last_error();
    cul_kernel_info info{};
    info.struct_size = sizeof info;
    ASSERT_EQ(cul_kernel_get_info(kernel, &info), CUL_OK);
    EXPECT_GE(info.parameter_count, 8) << name;
    ASSERT_EQ(cul_module_unload(module), CUL_OK);
    ++count;
  }
  EXPECT_TRUE(count >= 10 || !on_simt());
}

// simt with the test driver where it is compiled in, and cuda where there is a GPU.
std::vector<int32_t> backends_with_modules() {
  std::vector<int32_t> found;
  for (const int32_t backend : {CUL_BACKEND_SIMT, CUL_BACKEND_CUDA}) {
    int32_t count = 0;
    const char* reason = nullptr;
    if (cul_backend_devices(backend, &count, &reason) == CUL_OK && count > 0) found.push_back(backend);
  }
  return found;
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ModuleTest);
INSTANTIATE_TEST_SUITE_P(Backends, ModuleTest, ::testing::ValuesIn(backends_with_modules()),
                         [](const auto& p) { return cul_backend_name(p.param); });

TEST(ModuleAbsentTest, cpuAndSimtWithoutATestDriverSayWhy) {
  ASSERT_EQ(cul_testing_use_driver(nullptr), CUL_OK);
  for (int32_t backend : {CUL_BACKEND_CPU, CUL_BACKEND_SIMT}) {
    int32_t count = 0;
    const char* reason = nullptr;
    ASSERT_EQ(cul_backend_devices(backend, &count, &reason), CUL_OK);
    if (count == 0) continue;
    cul_device* device = nullptr;
    cul_module* module = nullptr;
    ASSERT_EQ(cul_device_open(backend, 0, nullptr, &device), CUL_OK);
    REFUSED(cul_module_load(device, axpy_ptx().data(), axpy_ptx().size(), &module), CUL_UNSUPPORTED, "has no modules");
    REFUSED(cul_module_compile(device, "", "a.cu", nullptr, 0, &module), CUL_UNSUPPORTED, "has no modules");
    EXPECT_EQ(cul_device_close(device), CUL_OK);
  }
  REFUSED(cul_testing_use_driver("/no/such/driver.so"), CUL_UNSUPPORTED, "/no/such/driver.so");
}

}  // namespace
}  // namespace culebra

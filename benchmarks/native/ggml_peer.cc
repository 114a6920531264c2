#include "ggml_peer.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace bench {

// The prototypes of ggml's C interface that are used here, with its handles as void*.
struct GgmlApi {
  struct InitParams {
    size_t bytes;
    void* memory;
    bool no_alloc;
  };
  const char* (*version)();
  const char* (*commit)();
  void* (*init)(InitParams);
  void (*free)(void* context);
  size_t (*tensor_overhead)();
  size_t (*graph_overhead)();
  size_t (*row_size)(int type, int64_t elements);
  void* (*new_tensor_2d)(void* context, int type, int64_t ne0, int64_t ne1);
  void* (*mul_mat)(void* context, void* a, void* b);
  void* (*new_graph)(void* context);
  void (*build_forward_expand)(void* graph, void* tensor);
  void* (*get_data)(const void* tensor);
  size_t (*quantize_chunk)(int type, const float* from, void* to, int64_t start, int64_t rows, int64_t columns, const float* importance);
  void* (*cpu_init)();
  void (*cpu_set_n_threads)(void* backend, int threads);
  void* (*get_device)(void* backend);
  void* (*dev_backend_reg)(void* device);
  void* (*reg_get_proc_address)(void* registry, const char* name);
  bool (*dev_supports_op)(void* device, const void* op);
  void* (*dev_buffer_type)(void* device);
  const char* (*buft_name)(void* buffer_type);
  void* (*alloc_ctx_tensors_from_buft)(void* context, void* buffer_type);
  void (*buffer_free)(void* buffer);
  void (*tensor_set)(void* tensor, const void* data, size_t offset, size_t size);
  int (*graph_compute)(void* backend, void* graph);
};

namespace {

[[noreturn]] void fail(const char* what, const char* detail) {
  std::fprintf(stderr, "bench_gemm: ggml: %s: %s\n", what, detail);
  std::exit(1);
}

// Handles of libggml-cpu.so also find what lies in libggml-base.so, which it depends on.
template <class F>
void find(void* library, const char* symbol, F*& function) {
  function = reinterpret_cast<F*>(dlsym(library, symbol));
  if (!function) fail("a function is missing", symbol);
}

void* context(const GgmlApi& api, size_t tensors, size_t graphs) {
  return api.init({tensors * api.tensor_overhead() + graphs * api.graph_overhead(), nullptr, true});
}

}  // namespace

Ggml::Ggml(int threads) {
  const char* path = std::getenv("CULEBRA_GGML");
  if (!path || !*path) return;
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fail("CULEBRA_GGML is not a library", dlerror());
  static GgmlApi api;
  find(library, "ggml_version", api.version);
  find(library, "ggml_commit", api.commit);
  find(library, "ggml_init", api.init);
  find(library, "ggml_free", api.free);
  find(library, "ggml_tensor_overhead", api.tensor_overhead);
  find(library, "ggml_graph_overhead", api.graph_overhead);
  find(library, "ggml_row_size", api.row_size);
  find(library, "ggml_new_tensor_2d", api.new_tensor_2d);
  find(library, "ggml_mul_mat", api.mul_mat);
  find(library, "ggml_new_graph", api.new_graph);
  find(library, "ggml_build_forward_expand", api.build_forward_expand);
  find(library, "ggml_get_data", api.get_data);
  find(library, "ggml_quantize_chunk", api.quantize_chunk);
  find(library, "ggml_backend_cpu_init", api.cpu_init);
  find(library, "ggml_backend_cpu_set_n_threads", api.cpu_set_n_threads);
  find(library, "ggml_backend_get_device", api.get_device);
  find(library, "ggml_backend_dev_backend_reg", api.dev_backend_reg);
  find(library, "ggml_backend_reg_get_proc_address", api.reg_get_proc_address);
  find(library, "ggml_backend_dev_supports_op", api.dev_supports_op);
  find(library, "ggml_backend_dev_buffer_type", api.dev_buffer_type);
  find(library, "ggml_backend_buft_name", api.buft_name);
  find(library, "ggml_backend_alloc_ctx_tensors_from_buft", api.alloc_ctx_tensors_from_buft);
  find(library, "ggml_backend_buffer_free", api.buffer_free);
  find(library, "ggml_backend_tensor_set", api.tensor_set);
  find(library, "ggml_backend_graph_compute", api.graph_compute);
  backend_ = api.cpu_init();
  if (!backend_) fail("no cpu backend", path);
  api.cpu_set_n_threads(backend_, threads);
  name_ = std::string("ggml ") + api.version() + " " + api.commit();
  api_ = &api;
}

GgmlWeights::GgmlWeights(const Ggml& ggml, GgmlFormat format, bool repack, int64_t n, int64_t k, const std::vector<float>& base,
                         int64_t rotated_bytes)
    : ggml_(ggml), n_(n), k_(k) {
  const GgmlApi& api = *ggml.api();
  const int type = static_cast<int>(format);
  const size_t row_bytes = api.row_size(type, k), bytes = row_bytes * static_cast<size_t>(n);
  const size_t copies = (static_cast<size_t>(rotated_bytes) + bytes - 1) / bytes;
  void* device = api.get_device(ggml.backend());
  const auto allocate = [&](void* buffer_type) {
    context_ = context(api, copies + 2, 0);
    for (size_t i = 0; i < copies; ++i) matrices_.push_back(api.new_tensor_2d(context_, type, k, n));
    buffer_ = api.alloc_ctx_tensors_from_buft(context_, buffer_type);
    if (!buffer_) fail("no memory in", api.buft_name(buffer_type));
    name_ = format == GgmlFormat::q4_0 ? "ggml_q4_0" : "ggml_q4_k";
    if (buffer_type != api.dev_buffer_type(device)) name_ += std::string(" in ") + api.buft_name(buffer_type);
  };
  const auto release = [&] {
    api.buffer_free(buffer_);
    api.free(context_);
    matrices_.clear();
  };
  // The first of the device's further layouts that multiplies this format, as a model loader chooses it.
  const auto extra = reinterpret_cast<void** (*)(void*)>(
      api.reg_get_proc_address(api.dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts"));
  bool found = false;
  for (void** types = repack && extra ? extra(device) : nullptr; !found && types && *types; ++types) {
    allocate(*types);
    void* product = api.mul_mat(context_, matrices_[0], api.new_tensor_2d(context_, 0, k, 1));
    found = api.dev_supports_op(device, product);
    if (!found) release();
  }
  if (!found) allocate(api.dev_buffer_type(device));

  const int64_t base_rows = static_cast<int64_t>(base.size()) / k;
  std::vector<char> quantized(bytes);
  api.quantize_chunk(type, base.data(), quantized.data(), 0, base_rows, k, nullptr);
  const size_t period = row_bytes * static_cast<size_t>(base_rows);
  for (size_t at = period; at < bytes; ++at) quantized[at] = quantized[at - period];
  for (void* matrix : matrices_) api.tensor_set(matrix, quantized.data(), 0, bytes);
}

GgmlWeights::~GgmlWeights() {
  ggml_.api()->buffer_free(buffer_);
  ggml_.api()->free(context_);
}

GgmlProduct::GgmlProduct(const GgmlWeights& weights, int64_t m, const std::vector<float>& a) : weights_(weights) {
  const GgmlApi& api = *weights.ggml_.api();
  const size_t copies = weights.matrices_.size();
  context_ = context(api, copies + 1, copies);
  void* x = api.new_tensor_2d(context_, 0, weights.k_, m);
  for (void* matrix : weights.matrices_) {
    results_.push_back(api.mul_mat(context_, matrix, x));
    graphs_.push_back(api.new_graph(context_));
    api.build_forward_expand(graphs_.back(), results_.back());
  }
  buffer_ = api.alloc_ctx_tensors_from_buft(context_, api.dev_buffer_type(api.get_device(weights.ggml_.backend())));
  if (!buffer_) fail("no memory for", "the results");
  api.tensor_set(x, a.data(), 0, a.size() * sizeof(float));
}

GgmlProduct::~GgmlProduct() {
  weights_.ggml_.api()->buffer_free(buffer_);
  weights_.ggml_.api()->free(context_);
}

void GgmlProduct::run(int copy) const {
  if (weights_.ggml_.api()->graph_compute(weights_.ggml_.backend(), graphs_[static_cast<size_t>(copy) % graphs_.size()]) != 0)
    fail("graph_compute", "failed");
}

const float* GgmlProduct::result() const { return static_cast<const float*>(weights_.ggml_.api()->get_data(results_[0])); }

}  // namespace bench

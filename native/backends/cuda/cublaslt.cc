#include "backends/cuda/cublaslt.h"

#include <dlfcn.h>

#include <cstring>
#include <vector>

#include "abi/status.h"

namespace culebra::cuda {
namespace {

// The part of the library's ABI that is called: opaque pointers, and numbers that NVIDIA keeps across the versions 12 and 13.
using Status = int;  // 0: success
using Opaque = struct OpaqueObject*;
struct HeuristicResult {
  uint64_t algorithm[8];
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(HeuristicResult) == 96);

constexpr int kCompute32F = 68, kReal32F = 0;
constexpr int kTransposeA = 3, kEpilogue = 7, kBiasPointer = 8;  // attributes of a product
constexpr int32_t kTransposed = 1, kEpilogueBias = 4;
constexpr int kMaxWorkspace = 1, kReductions = 3, kFirstAlignment = 5;  // attributes of a preference; four alignments: a, b, c, d
constexpr uint32_t kAlignment = 16;
// Partial sums of a split k in f32, added in order; not in the type of c.
constexpr uint32_t kReduceInComputeType = 2;
constexpr uint64_t kWorkspaceBytes = 32 << 20;  // what NVIDIA recommends for Hopper
constexpr size_t kMaxAnswers = 4096;

struct Functions {
  Status (*Create)(Opaque*);
  Status (*MatmulDescCreate)(Opaque*, int compute, int scale_type);
  Status (*MatmulDescDestroy)(Opaque);
  Status (*MatmulDescSetAttribute)(Opaque, int attribute, const void*, size_t bytes);
  Status (*MatrixLayoutCreate)(Opaque*, int type, uint64_t rows, uint64_t columns, int64_t column_stride);
  Status (*MatrixLayoutDestroy)(Opaque);
  Status (*MatmulPreferenceCreate)(Opaque*);
  Status (*MatmulPreferenceDestroy)(Opaque);
  Status (*MatmulPreferenceSetAttribute)(Opaque, int attribute, const void*, size_t bytes);
  Status (*MatmulAlgoGetHeuristic)(Opaque handle, Opaque product, Opaque a, Opaque b, Opaque c, Opaque d, Opaque preference, int wanted,
                                   HeuristicResult*, int* found);
  Status (*Matmul)(Opaque handle, Opaque product, const void* alpha, const void* a, Opaque a_layout, const void* b, Opaque b_layout,
                   const void* beta, const void* c, Opaque c_layout, void* d, Opaque d_layout, const uint64_t* algorithm, void* workspace,
                   size_t workspace_bytes, CUstream_st* stream);
};

// An object of the library, given back at the end of its scope.
class Object {
 public:
  Object(Status status, Opaque object, Status (*destroy)(Opaque)) : object_(status ? nullptr : object), destroy_(destroy) {}
  ~Object() {
    if (object_) destroy_(object_);
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  operator Opaque() const { return object_; }

 private:
  Opaque object_;
  Status (*destroy_)(Opaque);
};
template <class... A, class... B>
Object make(Status (*create)(Opaque*, A...), Status (*destroy)(Opaque), B... arguments) {
  Opaque object = nullptr;
  const Status status = create(&object, arguments...);
  return Object(status, object, destroy);
}

// The library's matrices are column-major: c^T [n, m] = b [k, n]^T a [k, m], without moving anything.
struct Description {
  Description(const Functions& f, const LibraryProduct& p, const void* bias)
      : product(make(f.MatmulDescCreate, f.MatmulDescDestroy, kCompute32F, kReal32F)),
        a(layout(f, p.type, p.k, p.n, p.ldb)),
        b(layout(f, p.type, p.k, p.m, p.lda)),
        c(layout(f, p.out_type, p.n, p.m, p.ldc)) {
    complete = product && a && b && c && set(f, kTransposeA, kTransposed) &&
               (!p.bias || (set(f, kEpilogue, kEpilogueBias) && set(f, kBiasPointer, bias)));
  }
  static Object layout(const Functions& f, LibraryProduct::Type type, int64_t rows, int64_t columns, int64_t stride) {
    return make(f.MatrixLayoutCreate, f.MatrixLayoutDestroy, static_cast<int>(type), static_cast<uint64_t>(rows),
                static_cast<uint64_t>(columns), columns > 1 ? stride : rows);
  }
  template <class V>
  bool set(const Functions& f, int attribute, V value) {
    return f.MatmulDescSetAttribute(product, attribute, &value, sizeof value) == 0;
  }
  Object product, a, b, c;
  bool complete;
};

class Loaded final : public CublasLt {
 public:
  Loaded(const Functions& functions, Opaque handle) : f_(functions), handle_(handle) {}

  void multiply(const LibraryProduct& p, const LibraryAlgorithm& algorithm, const void* a, const void* b, const void* bias, void* c,
                void* workspace, CUstream_st* stream) override {
    const Description d(f_, p, bias);
    const float one = 1, zero = 0;
    const Status status = d.complete ? f_.Matmul(handle_, d.product, &one, b, d.a, a, d.b, &zero, c, d.c, c, d.c, algorithm.data, workspace,
                                                 algorithm.workspace_bytes, stream)
                                     : -1;
    if (status)
      throw DeviceError(format("cuda: cuBLASLt refused a product of %lld x %lld x %lld: status %d", static_cast<long long>(p.m),
                               static_cast<long long>(p.n), static_cast<long long>(p.k), status));
  }

 protected:
  bool ask(const LibraryProduct& p, LibraryAlgorithm* algorithm) override {
    alignas(16) static const char some_bias[16] = {};  // only its alignment counts
    const Description d(f_, p, some_bias);
    const Object preference = make(f_.MatmulPreferenceCreate, f_.MatmulPreferenceDestroy);
    const auto set = [&](int attribute, const auto& value) {
      return f_.MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value) == 0;
    };
    if (!d.complete || !preference || !set(kMaxWorkspace, kWorkspaceBytes) || !set(kReductions, kReduceInComputeType)) return false;
    for (int i = 0; i < 4; ++i)
      if (!set(kFirstAlignment + i, kAlignment)) return false;
    HeuristicResult result{};
    int found = 0;
    if (f_.MatmulAlgoGetHeuristic(handle_, d.product, d.a, d.b, d.c, d.c, preference, 1, &result, &found) || found < 1 || result.state)
      return false;
    std::memcpy(algorithm->data, result.algorithm, sizeof algorithm->data);
    algorithm->workspace_bytes = result.workspace_bytes;
    return true;
  }

 private:
  const Functions f_;
  const Opaque handle_;  // lives as long as the process: contexts may be gone when static objects are destroyed
};

}  // namespace

bool CublasLt::choose(const LibraryProduct& product, LibraryAlgorithm* algorithm) {
  const std::lock_guard lock(mutex_);
  auto it = answers_.find(product);
  if (it == answers_.end()) {
    if (answers_.size() == kMaxAnswers) answers_.clear();
    Answer answer{};
    answer.found = ask(product, &answer.algorithm);
    it = answers_.emplace(product, answer).first;
  }
  if (it->second.found) *algorithm = it->second.algorithm;
  return it->second.found;
}

std::unique_ptr<CublasLt> CublasLt::load(std::span<const char* const> files, std::string* reason) {
  void* library = nullptr;
  for (const char* file : files)
    if ((library = dlopen(file, RTLD_NOW | RTLD_LOCAL))) break;
  if (!library) {
    const char* const why = dlerror();
    *reason = why ? why : "cuBLASLt was not found";
    return nullptr;
  }
  Functions f{};
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (!function && reason->empty()) *reason = format("cuBLASLt has no %s", name);
  };
  reason->clear();
#define CUL_FIND(name) find(f.name, "cublasLt" #name)
  CUL_FIND(Create);
  CUL_FIND(MatmulDescCreate);
  CUL_FIND(MatmulDescDestroy);
  CUL_FIND(MatmulDescSetAttribute);
  CUL_FIND(MatrixLayoutCreate);
  CUL_FIND(MatrixLayoutDestroy);
  CUL_FIND(MatmulPreferenceCreate);
  CUL_FIND(MatmulPreferenceDestroy);
  CUL_FIND(MatmulPreferenceSetAttribute);
  CUL_FIND(MatmulAlgoGetHeuristic);
  CUL_FIND(Matmul);
#undef CUL_FIND
  if (!reason->empty()) return nullptr;
  Opaque handle = nullptr;
  if (const Status status = f.Create(&handle)) {
    *reason = format("cublasLtCreate failed with status %d", status);
    return nullptr;
  }
  return std::make_unique<Loaded>(f, handle);
}

CublasLt* cublaslt(int device, std::string* reason) {
  struct Attempt {
    std::unique_ptr<CublasLt> library;
    std::string reason;
  };
  static std::mutex mutex;
  static auto& attempts = *new std::map<int, Attempt>;  // never destroyed, as the handles
  static constexpr const char* kFiles[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
  const std::lock_guard lock(mutex);
  auto it = attempts.find(device);
  if (it == attempts.end()) {
    it = attempts.try_emplace(device).first;
    it->second.library = CublasLt::load(kFiles, &it->second.reason);
  }
  *reason = it->second.reason;
  return it->second.library.get();
}

}  // namespace culebra::cuda

// cuBLASLt where the machine has it: found at run time, never linked, its prototypes declared in cublaslt.cc.
#pragma once
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>

struct CUstream_st;

namespace culebra::cuda {

// c [m, n] = a [m, k] b [n, k]^T + bias [n]; row-major with row strides in elements. Sums are f32, without TF32.
struct LibraryProduct {
  enum class Type : int32_t { f32 = 0, f16 = 2, bf16 = 14 };  // as cudaDataType numbers them
  int64_t m, n, k, lda, ldb, ldc;
  Type type, out_type;
  bool bias;  // of out_type

  auto operator<=>(const LibraryProduct&) const = default;
};

struct LibraryAlgorithm {
  uint64_t data[8] = {};
  uint64_t workspace_bytes = 0;
};

class CublasLt {
 public:
  // The first of the files that is there. Null: reason says why there is none that works.
  static std::unique_ptr<CublasLt> load(std::span<const char* const> files, std::string* reason);
  virtual ~CublasLt() = default;

  // The library's own choice, kept for the next call. False: it has none for this product.
  bool choose(const LibraryProduct& product, LibraryAlgorithm* algorithm);
  // Throws DeviceError.
  virtual void multiply(const LibraryProduct& product, const LibraryAlgorithm& algorithm, const void* a, const void* b, const void* bias, void* c,
                        void* workspace, CUstream_st* stream) = 0;

 protected:
  virtual bool ask(const LibraryProduct& product, LibraryAlgorithm* algorithm) = 0;

 private:
  struct Answer {
    bool found;
    LibraryAlgorithm algorithm;
  };
  std::mutex mutex_;
  std::map<LibraryProduct, Answer> answers_;
};

// The process's for a device, which is the calling thread's current one; loaded at the first call. Null: reason says why.
CublasLt* cublaslt(int device, std::string* reason);

}  // namespace culebra::cuda

// ggml's products with 4-bit weights as peers: its cpu backend, built separately, is taken from the file that the environment variable
// CULEBRA_GGML names (libggml-cpu.so). Weights lie where ggml itself would put them: in its repacked layout where it has
// one for this machine, and as they come for comparison.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

struct GgmlApi;  // the functions that were found

class Ggml {
 public:
  explicit Ggml(int threads);
  bool found() const { return api_ != nullptr; }
  // Version and commit.
  const std::string& name() const { return name_; }
  const GgmlApi* api() const { return api_; }
  void* backend() const { return backend_; }

 private:
  const GgmlApi* api_ = nullptr;
  void* backend_ = nullptr;
  std::string name_;
};

enum class GgmlFormat { q4_0 = 2, q4_k = 12 };  // ggml.h's numbers

// Copies of one quantized matrix [n, k], enough to fill `rotated_bytes`.
class GgmlWeights {
 public:
  // base: [base_rows, k], repeated until there are n rows. repack: false keeps ggml's file layout.
  GgmlWeights(const Ggml& ggml, GgmlFormat format, bool repack, int64_t n, int64_t k, const std::vector<float>& base, int64_t rotated_bytes);
  ~GgmlWeights();
  GgmlWeights(const GgmlWeights&) = delete;

  // The format, and where it is not the file's own layout, the name of ggml's buffer type: "ggml_q4_0 in CPU_REPACK".
  const std::string& name() const { return name_; }

 private:
  friend class GgmlProduct;
  const Ggml& ggml_;
  int64_t n_, k_;
  std::string name_;
  void* context_ = nullptr;
  void* buffer_ = nullptr;
  std::vector<void*> matrices_;
};

// c [m, n] = a [m, k] w^T for one m, as a graph of one node for each copy of the weights.
class GgmlProduct {
 public:
  GgmlProduct(const GgmlWeights& weights, int64_t m, const std::vector<float>& a);
  ~GgmlProduct();
  GgmlProduct(const GgmlProduct&) = delete;

  void run(int copy) const;  // modulo the number of copies
  const float* result() const;  // of copy 0, [m, n]

 private:
  const GgmlWeights& weights_;
  void* context_ = nullptr;
  void* buffer_ = nullptr;
  std::vector<void*> results_, graphs_;
};

}  // namespace bench

// What cublaslt.cc calls of cuBLASLt, on host memory in f32: a product goes wrong here if an operand, stride or transposition does.
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
};
struct Product {
  int32_t transpose_a = 0, epilogue = 1;
  const float* bias = nullptr;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = 0, alignments = 0;  // how many of 16 bytes
};
struct Result {
  uint64_t algorithm[8];
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};
constexpr uint64_t kAlgorithm = 77;

}  // namespace

#define FAKE extern "C" __attribute__((visibility("default")))

extern "C" {
__attribute__((visibility("default"))) int fake_objects = 0, fake_questions = 0;
}

FAKE int cublasLtCreate(void** handle) {
  static int one;
  *handle = &one;
  return 0;
}
FAKE int cublasLtMatmulDescCreate(void** out, int compute, int scale) {
  *out = new Product;
  ++fake_objects;
  return compute == 68 && scale == 0 ? 0 : 7;
}
FAKE int cublasLtMatmulDescDestroy(void* p) {
  delete static_cast<Product*>(p);
  --fake_objects;
  return 0;
}
FAKE int cublasLtMatmulDescSetAttribute(void* p, int attribute, const void* value, size_t bytes) {
  Product& product = *static_cast<Product*>(p);
  if (attribute == 3 && bytes == 4) return std::memcpy(&product.transpose_a, value, 4), 0;
  if (attribute == 7 && bytes == 4) return std::memcpy(&product.epilogue, value, 4), 0;
  if (attribute == 8 && bytes == 8) return std::memcpy(&product.bias, value, 8), 0;
  return 7;
}
FAKE int cublasLtMatrixLayoutCreate(void** out, int type, uint64_t rows, uint64_t columns, int64_t stride) {
  *out = new Layout{type, rows, columns, stride};
  ++fake_objects;
  return 0;
}
FAKE int cublasLtMatrixLayoutDestroy(void* p) {
  delete static_cast<Layout*>(p);
  --fake_objects;
  return 0;
}
FAKE int cublasLtMatmulPreferenceCreate(void** out) {
  *out = new Preference;
  ++fake_objects;
  return 0;
}
FAKE int cublasLtMatmulPreferenceDestroy(void* p) {
  delete static_cast<Preference*>(p);
  --fake_objects;
  return 0;
}
FAKE int cublasLtMatmulPreferenceSetAttribute(void* p, int attribute, const void* value, size_t bytes) {
  Preference& preference = *static_cast<Preference*>(p);
  if (attribute == 1 && bytes == 8) return std::memcpy(&preference.workspace, value, 8), 0;
  if (attribute == 3 && bytes == 4) return std::memcpy(&preference.reductions, value, 4), 0;
  if (attribute < 5 || attribute > 8 || bytes != 4 || *static_cast<const uint32_t*>(value) != 16) return 7;
  ++preference.alignments;
  return 0;
}
// Nothing for f16, so that a test sees what a caller does then.
FAKE int cublasLtMatmulAlgoGetHeuristic(void*, void*, void* a, void*, void*, void*, void* p, int wanted, Result* result, int* found) {
  ++fake_questions;
  const Preference& preference = *static_cast<Preference*>(p);
  const bool expected = wanted == 1 && preference.workspace == 32 << 20 && preference.reductions == 2 && preference.alignments == 4;
  *found = expected && static_cast<Layout*>(a)->type == 0 ? 1 : 0;
  *result = {{kAlgorithm}, 4096, 0, 1, {}};
  return 0;
}
FAKE int cublasLtMatmul(void*, void* p, const void* alpha, const void* a, void* la, const void* b, void* lb, const void* beta, const void* c,
                        void* lc, void* d, void* ld, const uint64_t* algorithm, void* workspace, size_t workspace_bytes, void*) {
  const Product& product = *static_cast<Product*>(p);
  const Layout &x = *static_cast<Layout*>(la), &y = *static_cast<Layout*>(lb), &z = *static_cast<Layout*>(ld);
  if (*algorithm != kAlgorithm || !workspace || workspace_bytes != 4096 || c != d || lc != ld || product.transpose_a != 1) return 7;
  if (x.rows != y.rows || z.rows != x.columns || z.columns != y.columns) return 7;
  for (uint64_t i = 0; i < z.rows; ++i)
    for (uint64_t j = 0; j < z.columns; ++j) {
      float sum = 0;
      for (uint64_t k = 0; k < x.rows; ++k)
        sum += static_cast<const float*>(a)[static_cast<int64_t>(k) + static_cast<int64_t>(i) * x.stride] *
               static_cast<const float*>(b)[static_cast<int64_t>(k) + static_cast<int64_t>(j) * y.stride];
      float& out = static_cast<float*>(d)[static_cast<int64_t>(i) + static_cast<int64_t>(j) * z.stride];
      const float old = *static_cast<const float*>(beta) == 0 ? 0 : out;
      out = *static_cast<const float*>(alpha) * sum + old + (product.epilogue == 4 ? product.bias[i] : 0);
    }
  return 0;
}

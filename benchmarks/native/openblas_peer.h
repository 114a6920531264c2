// OpenBLAS's f32 matrix product as a peer: taken from the machine at run time, where it is installed. The library itself
// never uses it.
#pragma once
#include <string>

namespace bench {

class OpenBlas {
 public:
  // threads: as many as our own side has.
  explicit OpenBlas(int threads);
  bool found() const { return sgemm_ != nullptr; }
  // Version and the kernels it chose: "OpenBLAS 0.3.21 ... Haswell".
  const std::string& name() const { return name_; }
  // c [m,n] = a [m,k] b^T, b [n,k]; all row-major and compact.
  void product(int m, int n, int k, const float* a, const float* b, float* c) const;

 private:
  // cblas.h's prototypes, with its enumerations as int.
  using Sgemm = void (*)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float* a, int lda,
                         const float* b, int ldb, float beta, float* c, int ldc);
  using Sgemv = void (*)(int order, int trans, int m, int n, float alpha, const float* a, int lda, const float* x,
                         int incx, float beta, float* y, int incy);
  Sgemm sgemm_ = nullptr;
  Sgemv sgemv_ = nullptr;
  std::string name_;
};

}  // namespace bench

#include "openblas_peer.h"

#include <dlfcn.h>

namespace bench {

OpenBlas::OpenBlas(int threads) {
  void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  const auto set_threads = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"));
  const auto config = reinterpret_cast<char* (*)()>(dlsym(library, "openblas_get_config"));
  sgemv_ = reinterpret_cast<Sgemv>(dlsym(library, "cblas_sgemv"));
  sgemm_ = sgemv_ ? reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm")) : nullptr;
  if (set_threads) set_threads(threads);
  if (config) name_ = config();
}

void OpenBlas::product(int m, int n, int k, const float* a, const float* b, float* c) const {
  constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;
  if (m == 1) sgemv_(kRowMajor, kPlain, n, k, 1.0f, b, k, a, 1, 0.0f, c, 1);
  else sgemm_(kRowMajor, kPlain, kTransposed, m, n, k, 1.0f, a, k, b, k, 0.0f, c, n);
}

}  // namespace bench

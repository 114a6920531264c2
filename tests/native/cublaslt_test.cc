// The way to cuBLASLt, on a machine without it: a library of the same interface takes its place (fake_cublaslt.cc).
#include "backends/cuda/cublaslt.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <vector>

#include "abi/status.h"

namespace culebra::cuda {
namespace {

constexpr const char* kFake[] = {"no-such-library.so", FAKE_CUBLASLT};

int& fake_number(const char* name) {
  static void* const library = dlopen(FAKE_CUBLASLT, RTLD_NOW);
  return *static_cast<int*>(dlsym(library, name));
}

TEST(CublasLt, aProductWithStridesAndBias) {
  std::string reason;
  const auto library = CublasLt::load(kFake, &reason);
  ASSERT_TRUE(library) << reason;
  constexpr int64_t m = 3, n = 4, k = 5;
  const LibraryProduct p{m, n, k, 6, 7, 9, LibraryProduct::Type::f32, LibraryProduct::Type::f32, true};
  LibraryAlgorithm algorithm;
  ASSERT_TRUE(library->choose(p, &algorithm));
  EXPECT_EQ(algorithm.workspace_bytes, 4096u);
  std::vector<float> a(m * p.lda), b(n * p.ldb), c(m * p.ldc, -1), bias{1, 2, 3, 4};
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 7) - 3;
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 5) - 2;
  char workspace[4096];
  library->multiply(p, algorithm, a.data(), b.data(), bias.data(), c.data(), workspace, nullptr);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < p.ldc; ++j) {
      float want = -1;
      if (j < n) {
        want = bias[static_cast<size_t>(j)];
        for (int64_t x = 0; x < k; ++x) want += a[static_cast<size_t>(i * p.lda + x)] * b[static_cast<size_t>(j * p.ldb + x)];
      }
      EXPECT_EQ(c[static_cast<size_t>(i * p.ldc + j)], want) << i << ", " << j;
    }
  EXPECT_EQ(fake_number("fake_objects"), 0);  // everything was given back
}

TEST(CublasLt, anAnswerIsKept) {
  std::string reason;
  const auto library = CublasLt::load(kFake, &reason);
  ASSERT_TRUE(library) << reason;
  LibraryProduct p{3, 4, 5, 5, 5, 4, LibraryProduct::Type::f32, LibraryProduct::Type::f32, false};
  const int before = fake_number("fake_questions");
  LibraryAlgorithm algorithm;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(library->choose(p, &algorithm));
  p.type = LibraryProduct::Type::f16;  // it has no algorithm for these
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(library->choose(p, &algorithm));
  EXPECT_EQ(fake_number("fake_questions"), before + 2);
}

TEST(CublasLt, aRefusedProductSaysWhich) {
  std::string reason;
  const auto library = CublasLt::load(kFake, &reason);
  ASSERT_TRUE(library) << reason;
  const LibraryProduct p{3, 4, 5, 5, 5, 4, LibraryProduct::Type::f32, LibraryProduct::Type::f32, false};
  float x[64] = {};
  try {
    library->multiply(p, {}, x, x, nullptr, x, nullptr, nullptr);
    FAIL() << "an algorithm that the library does not know";
  } catch (const DeviceError& e) {
    EXPECT_NE(std::string(e.what()).find("3 x 4 x 5"), std::string::npos) << e.what();
  }
}

TEST(CublasLt, withoutALibraryThereIsAReason) {
  std::string reason;
  const char* const missing[] = {"no-such-library.so"};
  EXPECT_FALSE(CublasLt::load(missing, &reason));
  EXPECT_NE(reason.find("no-such-library"), std::string::npos) << reason;
  const char* const another[] = {"libm.so.6"};
  EXPECT_FALSE(CublasLt::load(another, &reason));
  EXPECT_EQ(reason, "cuBLASLt has no cublasLtCreate");
}

}  // namespace
}  // namespace culebra::cuda

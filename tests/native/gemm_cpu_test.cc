// The cpu columns of w4a16_gemm and gemm against sums in double, on every compiled instruction set that this processor has.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "device/numeric.h"
#include "hwy/aligned_allocator.h"
#include "simd_targets.h"
#include "ops/gemm/packing/cpu_layout.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/gemm_cpu.h"
#include "ops/gemm/w4a16_gemm.h"
#include "ops/gemm/w4a16_gemm_cpu.h"

namespace culebra {
namespace {

using testing::on_every_target;

constexpr int kGuard = 5;  // elements between rows, which must stay as they are

float value_of(const void* data, DType type, int64_t i) {
  if (type == DType::f32) return static_cast<const float*>(data)[i];
  if (type == DType::f16) return to_float(static_cast<const half_t*>(data)[i]);
  return to_float(static_cast<const bfloat16_t*>(data)[i]);
}

void set_value(void* data, DType type, int64_t i, float value) {
  if (type == DType::f32) static_cast<float*>(data)[i] = value;
  else if (type == DType::f16) static_cast<half_t*>(data)[i] = from_float<half_t>(value);
  else static_cast<bfloat16_t*>(data)[i] = from_float<bfloat16_t>(value);
}

struct Matrix {
  DType type;
  int64_t rows, columns, stride;
  std::vector<std::byte> data;

  Matrix(DType type, int64_t rows, int64_t columns, int64_t stride)
      : type(type), rows(rows), columns(columns), stride(stride), data(static_cast<size_t>(rows * stride) * size_of(type), std::byte{0x5a}) {}
  float operator()(int64_t r, int64_t c) const { return value_of(data.data(), type, r * stride + c); }
  void set(int64_t r, int64_t c, float value) { set_value(data.data(), type, r * stride + c, value); }
  void fill(std::mt19937& rng) {
    std::normal_distribution<float> normal;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) set(r, c, normal(rng));
  }
  bool guards_untouched() const {
    const size_t size = size_of(type);
    for (int64_t r = 0; r < rows; ++r)
      for (size_t i = static_cast<size_t>(r * stride + columns) * size; i < static_cast<size_t>((r + 1) * stride) * size; ++i)
        if (data[i] != std::byte{0x5a}) return false;
    return true;
  }
};

// Poisoned, as the device's is: bytes that make a NaN of any float read from them.
hwy::AlignedFreeUniquePtr<std::byte[]> workspace_of(uint64_t bytes) {
  auto workspace = hwy::AllocateAligned<std::byte>(bytes + 1);
  std::memset(workspace.get(), 0xff, bytes);
  return workspace;
}

double bound_of(DType type) { return type == DType::f32 ? 1e-5 : type == DType::f16 ? 2e-3 : 5e-3; }

struct Case {
  int64_t m, n, k, group;
  DType type = DType::f16, scale_type = DType::f16;
  bool zeros = false, permuted = false, bias = false;
  int32_t epilogue = CUL_EPILOGUE_NONE;
};

// A packed weight matrix with everything else a call needs, and the f64 result.
struct W4A16 {
  Case c;
  int64_t n_padded, k_padded, group, width;
  Matrix a, scales, bias, out;
  std::vector<uint8_t> packed, zeros, q;
  std::vector<int32_t> perm;
  hwy::AlignedFreeUniquePtr<std::byte[]> workspace;

  explicit W4A16(const Case& c, uint32_t seed)
      : c(c),
        n_padded((c.n + CpuLayout::kNTile - 1) / CpuLayout::kNTile * CpuLayout::kNTile),
        k_padded((c.k + std::max<int64_t>(c.group, 32) - 1) / std::max<int64_t>(c.group, 32) * std::max<int64_t>(c.group, 32)),
        group(c.group > 0 ? c.group : k_padded),
        width(c.epilogue == CUL_EPILOGUE_SILU_MUL ? c.n / 2 : c.n),
        a(c.type, c.m, c.k, c.k + kGuard),
        scales(c.scale_type, k_padded / group, n_padded, n_padded),
        bias(c.type, 1, c.n, c.n),
        out(c.type, c.m, width, width + kGuard),
        packed(static_cast<size_t>(n_padded * k_padded / 2)),
        zeros(static_cast<size_t>(k_padded / group * n_padded), 8),
        q(static_cast<size_t>(n_padded * k_padded)),
        perm(static_cast<size_t>(k_padded), -1) {
    std::mt19937 rng(seed);
    a.fill(rng);
    bias.fill(rng);
    for (int64_t g = 0; g < scales.rows; ++g)
      for (int64_t n = 0; n < n_padded; ++n) scales.set(g, n, 0.005f + 0.01f * static_cast<float>(rng() % 64) / 64.0f);
    if (c.zeros)
      for (auto& z : zeros) z = static_cast<uint8_t>(rng() % 17);
    std::iota(perm.begin(), perm.begin() + c.k, 0);
    if (c.permuted) std::shuffle(perm.begin(), perm.end(), rng);
    for (auto& code : q) code = static_cast<uint8_t>(rng() % 16);
    std::vector<uint32_t> words(packed.size() / 4);
    for (size_t i = 0; i < words.size(); ++i)
      words[i] = CpuLayout::pack(static_cast<int64_t>(i), {n_padded, k_padded},
                                 [&](int64_t n, int64_t k) { return q[static_cast<size_t>(n * k_padded + k)]; });
    std::memcpy(packed.data(), words.data(), packed.size());
    workspace = workspace_of(cpu::w4a16_gemm_workspace(c.m, k_padded, group).bytes);
  }

  W4A16GemmParams params() {
    W4A16GemmParams p{};
    p.a = a.data.data();
    p.lda = a.stride;
    p.packed = packed.data();
    p.scales = scales.data.data();
    p.zeros = c.zeros ? zeros.data() : nullptr;
    p.perm = c.permuted ? perm.data() : nullptr;
    p.bias = c.bias ? bias.data.data() : nullptr;
    p.c = out.data.data();
    p.ldc = out.stride;
    p.m = c.m;
    p.n = c.n;
    p.k = c.k;
    p.n_padded = n_padded;
    p.k_padded = k_padded;
    p.group = group;
    p.groups = k_padded / group;
    p.dtype = c.type;
    p.scale_dtype = c.scale_type;
    p.epilogue = c.epilogue;
    p.workspace = workspace.get();
    return p;
  }

  double product(int64_t m, int64_t n) const {
    double sum = c.bias ? bias(0, n) : 0;
    for (int64_t k = 0; k < k_padded; ++k) {
      const int32_t column = perm[static_cast<size_t>(k)];
      if (column < 0) continue;
      const int zero = zeros[static_cast<size_t>(k / group * n_padded + n)];
      sum += double{a(m, column)} * (q[static_cast<size_t>(n * k_padded + k)] - zero) * double{scales(k / group, n)};
    }
    return sum;
  }

  double expected(int64_t m, int64_t n) const {
    const double x = product(m, n);
    if (c.epilogue == CUL_EPILOGUE_NONE) return x;
    const double silu = x / (1 + std::exp(-x));
    return c.epilogue == CUL_EPILOGUE_SILU ? silu : silu * product(m, n + width);
  }

  double rms_ratio() const {
    double error = 0, reference = 0;
    for (int64_t m = 0; m < c.m; ++m)
      for (int64_t n = 0; n < width; ++n) {
        const double want = expected(m, n), difference = out(m, n) - want;
        error += difference * difference;
        reference += want * want;
      }
    return std::sqrt(error / reference);
  }
};

TEST(W4A16GemmCpu, MatchesDouble) {
  const Case cases[] = {
      {1, 96, 256, 128},
      {1, 1, 1, -1, DType::bf16},
      {5, 33, 31, 32, DType::bf16, DType::f16, true, false, true},
      {13, 100, 250, 64, DType::f16, DType::bf16, true, true, true, CUL_EPILOGUE_SILU},
      {7, 70, 1000, -1, DType::f16, DType::f16, true, false, true, CUL_EPILOGUE_SILU_MUL},
      {131, 62, 96, 32, DType::bf16, DType::f16, false, false, true, CUL_EPILOGUE_SILU_MUL},
      {24, 256, 128, 128, DType::f16, DType::f16, false, true, false, CUL_EPILOGUE_SILU_MUL},
      {11, 64, 160, -1, DType::bf16, DType::bf16, false, true},
      // Several strips, chunks of k and tiles in a panel, the second half beginning inside a tile.
      {100, 790, 2100, 128, DType::f16, DType::f16, true, false, true, CUL_EPILOGUE_SILU_MUL},
  };
  ThreadPool pool(3);
  uint32_t seed = 1;
  for (const Case& c : cases) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed << ": M " << c.m << " N " << c.n << " K " << c.k << " group " << c.group);
    W4A16 w(c, seed++);
    on_every_target([&] {
      cpu::w4a16_gemm(w.params(), pool);
      EXPECT_LE(w.rms_ratio(), bound_of(c.type));
      EXPECT_TRUE(w.out.guards_untouched());
    });
  }
}

// Largest codes and activations of one sign fill the 32-bit sums as far as they can be filled.
TEST(W4A16GemmCpu, SumsDoNotOverflow) {
  W4A16 w({2, 32, 512, -1}, 7);
  std::fill(w.packed.begin(), w.packed.end(), uint8_t{0xff});
  std::fill(w.q.begin(), w.q.end(), uint8_t{15});
  for (int64_t k = 0; k < w.c.k; ++k) {
    w.a.set(0, k, 1.0f);
    w.a.set(1, k, -60.0f);
  }
  ThreadPool pool(1);
  on_every_target([&] {
    cpu::w4a16_gemm(w.params(), pool);
    EXPECT_LE(w.rms_ratio(), 1e-3);
  });
}

// Row m of b is, bit for bit, what `together` holds there.
bool same_row(const Matrix& b, const std::vector<std::byte>& together, int64_t m) {
  const size_t bytes = static_cast<size_t>(b.stride) * size_of(b.type), at = static_cast<size_t>(m) * bytes;
  return std::equal(b.data.begin() + static_cast<int64_t>(at), b.data.begin() + static_cast<int64_t>(at + bytes),
                    together.begin() + static_cast<int64_t>(at));
}

// One row alone, all rows together, in two workspaces' worth, by any number of threads: the same bits.
TEST(W4A16GemmCpu, BitsDoNotDependOnRowsOrThreads) {
  W4A16 w({200, 8, 16384, 128, DType::bf16, DType::f16, true, false, true}, 11);
  const int64_t rows = cpu::w4a16_gemm_workspace(w.c.m, w.k_padded, w.group).rows;
  ASSERT_LT(rows, w.c.m);
  ThreadPool one(1), three(3);
  W4A16GemmParams p = w.params();
  p.batch_invariant = true;
  cpu::w4a16_gemm(p, one);
  const std::vector<std::byte> together = w.out.data;
  std::fill(w.out.data.begin(), w.out.data.end(), std::byte{0x5a});
  cpu::w4a16_gemm(p, three);
  EXPECT_EQ(together, w.out.data);
  std::fill(w.out.data.begin(), w.out.data.end(), std::byte{0x5a});
  for (const int64_t m : {int64_t{0}, int64_t{17}, rows - 1, rows, w.c.m - 1}) {
    W4A16GemmParams row = p;
    row.m = 1;
    row.a = static_cast<const std::byte*>(p.a) + m * p.lda * 2;
    row.c = static_cast<std::byte*>(p.c) + m * p.ldc * 2;
    cpu::w4a16_gemm(row, three);
    EXPECT_TRUE(same_row(w.out, together, m)) << "row " << m;
  }
}

TEST(W4A16GemmCpu, InfinityAndNanStayWhereTheyAre) {
  W4A16 w({4, 40, 256, 128}, 13);
  w.a.set(1, 200, std::numeric_limits<float>::infinity());
  w.a.set(2, 3, std::numeric_limits<float>::quiet_NaN());
  ThreadPool pool(2);
  on_every_target([&] {
    cpu::w4a16_gemm(w.params(), pool);
    for (int64_t m = 0; m < 4; ++m)
      for (int64_t n = 0; n < 40; ++n) {
        const double want = w.expected(m, n);
        const float got = w.out(m, n);
        ASSERT_EQ(std::isnan(want), std::isnan(got)) << m << "," << n;
        ASSERT_EQ(std::isinf(want), std::isinf(got)) << m << "," << n;
        if (std::isinf(want)) {
          ASSERT_EQ(want > 0, got > 0) << m << "," << n;
        }
      }
  });
}

// bf16 activations far below f16's range keep their relative precision; zeros give zeros.
TEST(W4A16GemmCpu, SmallActivations) {
  W4A16 w({2, 64, 128, 32, DType::bf16, DType::bf16}, 17);
  for (int64_t k = 0; k < 128; ++k) {
    w.a.set(0, k, w.a(0, k) * 0x1p-80f);
    w.a.set(1, k, 0.0f);
  }
  ThreadPool pool(1);
  on_every_target([&] {
    cpu::w4a16_gemm(w.params(), pool);
    EXPECT_LE(w.rms_ratio(), 5e-3);
    for (int64_t n = 0; n < 64; ++n) EXPECT_EQ(w.out(1, n), 0.0f);
  });
}

struct DenseCase {
  int64_t m, n, k;
  DType type = DType::f32, out_type = DType::f32;
  int32_t act = CUL_ACT_NONE;
  bool bias = false;
};

struct Dense {
  DenseCase c;
  Matrix a, b, bias, out;
  hwy::AlignedFreeUniquePtr<std::byte[]> workspace;

  Dense(const DenseCase& c, uint32_t seed)
      : c(c), a(c.type, c.m, c.k, c.k + kGuard), b(c.type, c.n, c.k, c.k + kGuard), bias(c.type, 1, c.n, c.n),
        out(c.out_type, c.m, c.n, c.n + kGuard),
        workspace(workspace_of(cpu::gemm_workspace(c.m, c.k).bytes)) {
    std::mt19937 rng(seed);
    a.fill(rng);
    b.fill(rng);
    bias.fill(rng);
  }

  GemmParams params(bool batch_invariant) {
    GemmParams p{};
    p.a = a.data.data();
    p.lda = a.stride;
    p.b = b.data.data();
    p.ldb = b.stride;
    p.bias = c.bias ? bias.data.data() : nullptr;
    p.c = out.data.data();
    p.ldc = out.stride;
    p.m = c.m;
    p.n = c.n;
    p.k = c.k;
    p.dtype = c.type;
    p.out_dtype = c.out_type;
    p.act = c.act;
    p.batch_invariant = batch_invariant;
    p.workspace = workspace.get();
    return p;
  }

  double rms_ratio() const {
    double error = 0, reference = 0;
    for (int64_t m = 0; m < c.m; ++m)
      for (int64_t n = 0; n < c.n; ++n) {
        double want = c.bias ? bias(0, n) : 0;
        for (int64_t k = 0; k < c.k; ++k) want += double{a(m, k)} * double{b(n, k)};
        if (c.act == CUL_ACT_SILU) want = want / (1 + std::exp(-want));
        if (c.act == CUL_ACT_GELU) want = want * std::erfc(-want / std::sqrt(2.0)) / 2;
        error += (out(m, n) - want) * (out(m, n) - want);
        reference += want * want;
      }
    return reference == 0 ? std::sqrt(error) : std::sqrt(error / reference);
  }
};

TEST(GemmCpu, MatchesDouble) {
  const DenseCase cases[] = {
      {1, 1, 1},
      {1, 96, 256},
      {2, 3, 33, DType::bf16, DType::f32, CUL_ACT_GELU, true},
      {3, 99, 301, DType::f32, DType::f32, CUL_ACT_SILU, true},
      {4, 70, 700, DType::f16, DType::bf16, CUL_ACT_NONE, true},
      {13, 99, 1001, DType::f32, DType::f32, CUL_ACT_GELU, true},
      {401, 35, 260, DType::f16, DType::f16, CUL_ACT_GELU},
      {26, 130, 96, DType::bf16, DType::bf16, CUL_ACT_SILU, true},
      {17, 31, 15, DType::bf16, DType::f16},
      {6, 40, 0, DType::f16, DType::f32, CUL_ACT_SILU, true},
      {1, 40, 0, DType::f32, DType::f32},
  };
  ThreadPool pool(3);
  uint32_t seed = 101;
  for (const DenseCase& c : cases) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed << ": M " << c.m << " N " << c.n << " K " << c.k);
    Dense dense(c, seed++);
    for (const bool batch_invariant : {false, true})
      on_every_target([&] {
        cpu::gemm(dense.params(batch_invariant), pool);
        EXPECT_LE(dense.rms_ratio(), bound_of(c.out_type));
        EXPECT_TRUE(dense.out.guards_untouched());
      });
  }
}

TEST(GemmCpu, BatchInvariantRowsAndAnyThreads) {
  Dense dense({110, 8, 43000, DType::bf16, DType::f32, CUL_ACT_NONE, true}, 131);
  const int64_t rows = cpu::gemm_workspace(dense.c.m, dense.c.k).rows;
  ASSERT_LT(rows, dense.c.m);
  ThreadPool one(1), three(3);
  const GemmParams p = dense.params(true);
  cpu::gemm(p, one);
  const std::vector<std::byte> together = dense.out.data;
  std::fill(dense.out.data.begin(), dense.out.data.end(), std::byte{0x5a});
  cpu::gemm(p, three);
  EXPECT_EQ(together, dense.out.data);
  std::fill(dense.out.data.begin(), dense.out.data.end(), std::byte{0x5a});
  for (const int64_t m : {int64_t{0}, int64_t{17}, rows - 1, rows, dense.c.m - 1}) {
    GemmParams row = p;
    row.m = 1;
    row.a = static_cast<const std::byte*>(p.a) + m * p.lda * 2;
    row.c = static_cast<std::byte*>(p.c) + m * p.ldc * 4;
    cpu::gemm(row, three);
    EXPECT_TRUE(same_row(dense.out, together, m)) << "row " << m;
  }
}

}  // namespace
}  // namespace culebra

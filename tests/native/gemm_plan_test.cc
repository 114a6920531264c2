// How the tensor-core products are cut up: pure functions, any device's SM count.
#include <gtest/gtest.h>

#include "backends/backend.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/w4a16_gemm.h"

namespace culebra {
namespace {

DeviceCaps device(int major, int multiprocessors) {
  DeviceCaps caps;
  caps.backend = CUL_BACKEND_CUDA;
  caps.compute_major = major;
  caps.multiprocessors = multiprocessors;
  return caps;
}
const DeviceCaps kA100 = device(8, 108), kH200 = device(9, 132);

// w4a16_gemm's call of these shapes, as check makes it.
W4A16GemmParams call(int64_t m, int64_t n, int64_t k) {
  W4A16GemmParams p{};
  p.m = m, p.n = n, p.k = p.lda = k;
  p.n_padded = (n + 63) / 64 * 64, p.k_padded = (k + 63) / 64 * 64;
  return p;
}
W4A16Plan plan(const W4A16GemmParams& p, const DeviceCaps& caps, std::string* reason = nullptr) {
  std::string text;
  const W4A16Plan result = plan_w4a16_gemm(p, caps, &text);
  EXPECT_EQ(p.m == 0, text.empty());
  if (reason) *reason = text;
  return result;
}
W4A16Plan plan(int64_t m, int64_t n, int64_t k, const DeviceCaps& caps) { return plan(call(m, n, k), caps); }

GemmPlan dense_plan(int64_t m, int64_t n, int64_t k, const DeviceCaps& caps, bool batch_invariant = false) {
  GemmParams p{};
  p.m = m, p.n = n, p.k = p.lda = p.ldb = k;
  p.dtype = DType::f16, p.batch_invariant = batch_invariant;
  std::string reason;
  const GemmPlan result = plan_gemm(p, caps, &reason);
  EXPECT_FALSE(reason.empty());
  return result;
}

TEST(GemmPlan, theTileIsTheSmallestThatHoldsTheTokens) {
  for (const DeviceCaps& caps : {kA100, kH200}) {
    EXPECT_EQ(plan(1, 4096, 4096, caps).tile_tokens, 8);
    EXPECT_EQ(plan(9, 4096, 4096, caps).tile_tokens, 16);
    EXPECT_EQ(plan(32, 4096, 4096, caps).tile_tokens, 32);
    EXPECT_EQ(plan(33, 4096, 4096, caps).tile_tokens, 64);
    EXPECT_EQ(plan(65, 4096, 4096, caps).tile_tokens, 128);
    EXPECT_EQ(plan(4096, 4096, 4096, caps).tile_tokens, 128);
  }
  EXPECT_EQ(plan(150, 4096, 4096, kH200).tile_tokens, 64);  // 192 rows of tiles instead of 256
}

TEST(GemmPlan, theHopperDesignRunsWhereItCan) {
  W4A16GemmParams p = call(5, 4096, 4096);
  EXPECT_EQ(plan(p, kH200).design, GemmDesign::hopper);
  for (const int major : {8, 10}) EXPECT_EQ(plan(p, device(major, 132)).design, GemmDesign::marlin) << major;
  DeviceCaps ada = kA100;
  ada.compute_minor = 9;
  EXPECT_EQ(plan(p, ada).design, GemmDesign::marlin);
  p.lda = 4100;  // rows at multiples of 8 bytes
  std::string reason;
  EXPECT_EQ(plan(p, kH200, &reason).design, GemmDesign::marlin);
  EXPECT_NE(reason.find("16 bytes"), std::string::npos) << reason;
  p.m = 1;  // one row has no stride
  EXPECT_EQ(plan(p, kH200).design, GemmDesign::hopper);
  const int32_t perm = 0;
  p.m = 5, p.perm = &perm;  // the gathered rows are aligned
  EXPECT_EQ(plan(p, kH200).design, GemmDesign::hopper);
}

TEST(GemmPlan, denseTiles) {
  EXPECT_EQ(dense_plan(16, 4096, 4096, kA100).tile_tokens, 16);
  EXPECT_EQ(dense_plan(17, 4096, 4096, kA100).tile_tokens, 128);
  EXPECT_EQ(dense_plan(16, 4096, 4096, kH200).tile_tokens, 16);
  EXPECT_EQ(dense_plan(17, 4096, 4096, kH200).tile_tokens, 128);
  EXPECT_EQ(dense_plan(300, 4096, 4096, kH200).tile_tokens, 128);  // 384 rows of tiles instead of 512
  EXPECT_EQ(dense_plan(4096, 4096, 4096, kH200).tile_tokens, 256);
  EXPECT_EQ(dense_plan(5, 4096, 4096, kH200).design, GemmDesign::hopper);
  EXPECT_EQ(dense_plan(5, 4096, 4100, kH200).design, GemmDesign::marlin);  // rows at multiples of 8 bytes
  EXPECT_EQ(dense_plan(5, 4096, 4096, kA100).design, GemmDesign::marlin);
  EXPECT_EQ(dense_plan(1, 1024, 8192, kH200).splits, 8);  // 8 tiles for 264 places
}

TEST(GemmPlan, whatTheLibraryMayHave) {
  GemmParams p{};
  p.m = 17, p.n = 64, p.k = 64;
  p.lda = p.ldb = p.ldc = 64;
  p.dtype = p.out_dtype = DType::bf16;
  EXPECT_EQ(not_for_library(p), nullptr);
  const auto refused = [&](auto change) {
    GemmParams changed = p;
    change(changed);
    return not_for_library(changed) != nullptr;
  };
  const float bias = 0;
  EXPECT_TRUE(refused([](GemmParams& q) { q.batch_invariant = true; }));
  EXPECT_TRUE(refused([](GemmParams& q) { q.act = CUL_ACT_GELU; }));
  EXPECT_TRUE(refused([](GemmParams& q) { q.k = 0; }));
  EXPECT_TRUE(refused([](GemmParams& q) { q.m = 16; }));
  EXPECT_TRUE(refused([](GemmParams& q) { q.lda = 0; }));
  EXPECT_TRUE(refused([](GemmParams& q) { q.ldb = -64; }));
  EXPECT_FALSE(refused([](GemmParams& q) { q.m = 1, q.dtype = q.out_dtype = DType::f32; }));
  EXPECT_FALSE(refused([&](GemmParams& q) { q.bias = &bias; }));
  EXPECT_TRUE(refused([&](GemmParams& q) { q.bias = &bias, q.out_dtype = DType::f32; }));
}

TEST(GemmPlan, splitsCoverKOnce) {
  for (const int major : {8, 9})
    for (int64_t m : {1, 7, 16, 30, 64, 100, 1000})
      for (int64_t n : {1, 64, 77, 4096, 28672})
        for (int64_t k : {1, 64, 131, 576, 4096, 14336})
          for (int sms : {1, 16, 132})
            for (const bool invariant : {false, true}) {
              SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << " on " << sms << " of " << major);
              W4A16GemmParams params = call(m, n, k);
              params.batch_invariant = invariant;
              const W4A16Plan p = plan(params, device(major, sms));
              const int64_t slices = (k + 63) / 64;
              EXPECT_GE(int64_t{p.splits} * p.slices_per_split, slices);
              EXPECT_LT(int64_t{p.splits - 1} * p.slices_per_split, slices);  // none is empty
              if (p.design == GemmDesign::hopper) {
                EXPECT_TRUE(p.splits == 1 || p.splits == 2 || p.splits == 4 || p.splits == 8) << p.splits;
                EXPECT_EQ(p.workspace_bytes, 0u);  // a cluster adds its sums in shared memory
              } else if (p.splits > 1) {
                EXPECT_LE((m + p.tile_tokens - 1) / p.tile_tokens * (((n + 63) / 64 + 1) / 2) * p.splits, 3 * sms);  // one wave
              }
            }
}

TEST(GemmPlan, decodingFillsTheDevice) {
  const W4A16Plan marlin = plan(1, 4096, 14336, kA100);  // 32 column tiles for 108 SMs
  EXPECT_GE(32 * marlin.splits, 108);
  EXPECT_FALSE(marlin.fused);
  EXPECT_EQ(marlin.workspace_bytes, 4096u * 4 * static_cast<uint64_t>(marlin.splits));
  const W4A16Plan square = plan(1, 8192, 8192, kH200);  // 32 tiles of 256 columns, two blocks an SM
  EXPECT_EQ(square.splits, 8);
  EXPECT_TRUE(square.fused);
  // 288 tiles are 24 more than one wave of 264 blocks: eight waves and three quarters of an eighth each waste less.
  EXPECT_EQ(plan(1, 73728, 18432, kH200).splits, 8);
  EXPECT_EQ(plan(4096, 4096, 4096, kH200).splits, 1);
}

TEST(GemmPlan, batchInvariantPlansDoNotLookAtM) {
  for (const DeviceCaps& caps : {kA100, kH200}) {
    W4A16GemmParams params = call(1, 4096, 4096);
    params.batch_invariant = true;
    const W4A16Plan one = plan(params, caps);
    for (int64_t m : {2, 16, 100, 5000}) {
      params.m = m;
      const W4A16Plan p = plan(params, caps);
      EXPECT_EQ(p.tile_tokens, one.tile_tokens);
      EXPECT_EQ(p.splits, one.splits);
      EXPECT_EQ(p.slices_per_split, one.slices_per_split);
    }
  }
  for (const DeviceCaps& caps : {kA100, kH200}) {
    const GemmPlan one = dense_plan(1, 4096, 4096, caps, true), many = dense_plan(5000, 4096, 4096, caps, true);
    EXPECT_EQ(one.tile_tokens, many.tile_tokens);
    EXPECT_EQ(one.splits, many.splits);
    EXPECT_EQ(one.slices_per_split, many.slices_per_split);
  }
}

TEST(GemmPlan, siluMulIsFusedWhereHalvesAreWholeBlocks) {
  for (const DeviceCaps& caps : {kA100, kH200}) {
    W4A16GemmParams p = call(512, 28672, 4096);
    p.epilogue = CUL_EPILOGUE_SILU_MUL;
    EXPECT_TRUE(plan(p, caps).fused);
    p = call(512, 28672 + 64, 4096);
    p.epilogue = CUL_EPILOGUE_SILU_MUL;
    std::string reason;
    const W4A16Plan odd = plan(p, caps, &reason);
    EXPECT_FALSE(odd.fused);
    EXPECT_EQ(odd.partial_sums, 1);
    EXPECT_EQ(odd.workspace_bytes, 512u * (28672 + 64) * 4);
    EXPECT_NE(reason.find("silu_mul"), std::string::npos) << reason;
  }
}

TEST(GemmPlan, actOrderKeepsPermutedTokensBesideThePartialSums) {
  const int32_t perm = 0;
  W4A16GemmParams params = call(3, 4096, 4096);
  params.perm = &perm;
  const W4A16Plan p = plan(params, kA100);
  EXPECT_TRUE(p.gather);
  EXPECT_EQ(p.partials_offset, 3u * 4096 * 2);
  EXPECT_EQ(p.workspace_bytes, p.partials_offset + 3u * 4096 * 4 * static_cast<uint64_t>(p.splits));
  EXPECT_EQ(plan(params, kH200).workspace_bytes, 3u * 4096 * 2);
}

TEST(GemmPlan, emptyWorkNeedsNothing) {
  for (const DeviceCaps& caps : {kA100, kH200}) EXPECT_EQ(plan(0, 4096, 4096, caps).workspace_bytes, 0u);
  for (const DeviceCaps& caps : {kA100, kH200}) {
    const GemmPlan p = dense_plan(5, 7, 0, caps);
    EXPECT_EQ(p.splits, 1);
    EXPECT_EQ(p.workspace_bytes, 0u);
  }
}

}  // namespace
}  // namespace culebra

// How the tensor-core products are cut up: pure functions, any device's SM count.
#include <gtest/gtest.h>

#include "ops/gemm/gemm.h"
#include "ops/gemm/tile_gemm.h"
#include "ops/gemm/w4a16_gemm.h"

namespace culebra {
namespace {

constexpr int kH200 = 132;

W4A16Plan plan(int64_t m, int64_t n, int64_t k, int32_t epilogue = CUL_EPILOGUE_NONE, bool perm = false, bool invariant = false,
               int sms = kH200, std::string* reason = nullptr) {
  std::string text;
  const W4A16Plan p = plan_w4a16_gemm(m, n, (n + 63) / 64 * 64, (k + 63) / 64 * 64, epilogue, perm, invariant, sms, &text);
  EXPECT_EQ(m == 0, text.empty());
  if (reason) *reason = text;
  return p;
}

TEST(GemmPlan, theTileIsTheSmallestThatHoldsTheTokens) {
  EXPECT_EQ(plan(1, 4096, 4096).tile_tokens, 8);
  EXPECT_EQ(plan(9, 4096, 4096).tile_tokens, 16);
  EXPECT_EQ(plan(32, 4096, 4096).tile_tokens, 32);
  EXPECT_EQ(plan(33, 4096, 4096).tile_tokens, 64);
  EXPECT_EQ(plan(65, 4096, 4096).tile_tokens, 128);
  EXPECT_EQ(plan(4096, 4096, 4096).tile_tokens, 128);
}

TEST(GemmPlan, splitsCoverKOnceAndFillAtMostOneWave) {
  for (int64_t m : {1, 7, 16, 30, 64, 100, 1000})
    for (int64_t n : {1, 64, 77, 4096, 28672})
      for (int64_t k : {1, 64, 131, 4096, 14336})
        for (int sms : {1, 16, kH200}) {
          SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << " on " << sms);
          const W4A16Plan p = plan(m, n, k, CUL_EPILOGUE_NONE, false, false, sms);
          const int64_t slices = (k + 63) / 64;
          EXPECT_GE(int64_t{p.splits} * p.slices_per_split, slices);
          EXPECT_LT(int64_t{p.splits - 1} * p.slices_per_split, slices);  // none is empty
          const int64_t blocks = (m + p.tile_tokens - 1) / p.tile_tokens * (((n + 63) / 64 + 1) / 2);
          if (p.splits > 1) {
            EXPECT_LE(blocks * p.splits, 3 * sms);
          }
        }
}

TEST(GemmPlan, decodingFillsTheDevice) {
  const W4A16Plan p = plan(1, 4096, 14336);  // 32 column tiles for 132 SMs
  EXPECT_GE(32 * p.splits, kH200);
  EXPECT_FALSE(p.fused);
  EXPECT_EQ(p.workspace_bytes, 4096u * 4 * static_cast<uint64_t>(p.splits));
}

TEST(GemmPlan, batchInvariantPlansDoNotLookAtM) {
  const W4A16Plan one = plan(1, 4096, 4096, CUL_EPILOGUE_NONE, false, true);
  for (int64_t m : {2, 16, 100, 5000}) {
    const W4A16Plan p = plan(m, 4096, 4096, CUL_EPILOGUE_NONE, false, true);
    EXPECT_EQ(p.tile_tokens, one.tile_tokens);
    EXPECT_EQ(p.splits, one.splits);
    EXPECT_EQ(p.slices_per_split, one.slices_per_split);
  }
  std::string reason;
  const GemmPlan dense = plan_gemm(1, 4096, 4096, DType::f16, true, kH200, &reason);
  EXPECT_EQ(dense.tile_tokens, plan_gemm(5000, 4096, 4096, DType::f16, true, kH200, &reason).tile_tokens);
  EXPECT_EQ(dense.splits, 1);
}

TEST(GemmPlan, siluMulIsFusedWhereHalvesAreWholeBlocks) {
  EXPECT_TRUE(plan(512, 28672, 4096, CUL_EPILOGUE_SILU_MUL).fused);
  std::string reason;
  const W4A16Plan odd = plan(512, 28672 + 64, 4096, CUL_EPILOGUE_SILU_MUL, false, false, kH200, &reason);
  EXPECT_FALSE(odd.fused);
  EXPECT_EQ(odd.splits, 1);
  EXPECT_EQ(odd.workspace_bytes, 512u * (28672 + 64) * 4);
  EXPECT_NE(reason.find("silu_mul"), std::string::npos) << reason;
}

TEST(GemmPlan, actOrderKeepsPermutedTokensBesideThePartialSums) {
  const W4A16Plan p = plan(3, 4096, 4096, CUL_EPILOGUE_NONE, true);
  EXPECT_TRUE(p.gather);
  EXPECT_EQ(p.partials_offset, 3u * 4096 * 2);
  EXPECT_EQ(p.workspace_bytes, p.partials_offset + 3u * 4096 * 4 * static_cast<uint64_t>(p.splits));
}

TEST(GemmPlan, emptyWorkNeedsNothing) {
  EXPECT_EQ(plan(0, 4096, 4096, CUL_EPILOGUE_NONE, true).workspace_bytes, 0u);
  std::string reason;
  const GemmPlan p = plan_gemm(5, 7, 0, DType::bf16, false, kH200, &reason);
  EXPECT_EQ(p.splits, 1);
  EXPECT_EQ(p.workspace_bytes, 0u);
}

}  // namespace
}  // namespace culebra

// Rows times their experts' matrices: what kernels get, made by the check of moe_grouped_gemm and by the plan of moe_mlp.
#pragma once
#include <string>

#include "abi/indices.h"
#include "abi/op.h"
#include "ops/gemm/gemm_design.h"
#include "ops/moe/experts.h"

namespace culebra {

// What happens to a row's sums: nothing, or the second half of the columns (up) multiplied by a function of the first (gate).
enum class GroupedAct : int32_t { none, silu_mul, gelu_mul, swiglu_oai };

// cuda and simt: how a product is cut up; a pure function of its shapes and the device.
struct GroupedPlan {
  GemmDesign design = GemmDesign::marlin;
  int32_t tile_tokens = 0;  // rows of a tile; a tile has rows of one expert
  int64_t row_tiles = 0;    // at most: how many there are stands on the device
  int64_t column_tiles = 0;
  uint64_t tiles_offset = 0;  // bytes into the workspace, behind the experts' first tiles
  uint64_t rows_offset = 0, row_scales_offset = 0;  // hopper with gather: the rows in order, and their scales
  uint64_t workspace_bytes = 0;
};

struct GroupedGemmParams {
  DType dtype = DType::bf16;  // of a: half, or f8e4m3 with a_scale
  const void* a = nullptr;    // [a_rows, k]
  int64_t lda = 0, a_rows = 0;
  const float* a_scale = nullptr;  // (row of a, k / 128)
  int64_t a_scale_stride = 0;
  ExpertMatrices b;                  // [E, n, k]
  const int64_t* offsets = nullptr;  // [E+1]
  const int32_t* gather = nullptr;   // [rows]: which row of a; null: the same
  void* c = nullptr;                 // [rows, columns()]
  int64_t ldc = 0;
  DType out_dtype = DType::bf16;
  int64_t rows = 0;
  GroupedAct act = GroupedAct::none;
  const void* bias = nullptr;  // [E, n] of bias_dtype, or null
  DType bias_dtype = DType::bf16;
  int64_t bias_stride = 0;
  float alpha = 0, limit = 0;  // of swiglu_oai
  bool validate = false, batch_invariant = false;
  int64_t chunk = 0;  // cpu: rows that wait as f32 at once
  void* workspace = nullptr;
  GroupedPlan plan;

  bool gated() const { return act != GroupedAct::none; }
  CUL_NUMERIC int64_t experts() const { return b.experts; }
  int64_t n() const { return b.rows; }
  int64_t k() const { return b.columns; }
  int64_t columns() const { return gated() ? n() / 2 : n(); }  // of c

  // Experts, then gathered rows (abi/indices.h). Rows behind the last group are nobody's.
  int64_t index_items() const { return experts() + (gather ? rows : 0); }
  CUL_NUMERIC bool valid(int64_t i) const {
    if (i < experts()) return offsets[0] == 0 && offsets[i] <= offsets[i + 1] && offsets[i + 1] <= rows;
    const int64_t r = i - experts();
    return r >= offsets[experts()] || (gather[r] >= -1 && gather[r] < a_rows);
  }
  std::string invalid_text(int64_t i) const;
};

GroupedGemmParams check_moe_grouped_gemm(const Call& call, const cul_moe_grouped_gemm_args& args);

// Of a product without plan and workspace. reason: what was chosen and why.
GroupedPlan plan_grouped_gemm(const GroupedGemmParams& p, const DeviceCaps& caps, std::string* reason);

namespace cpu {

// The workspace: f32 [chunk, k padded], then the experts that have rows, i32 [E].
uint64_t grouped_workspace_bytes(const GroupedGemmParams& p);

}  // namespace cpu

CUL_DECLARE_COLUMNS(moe_grouped_gemm, GroupedGemmParams)

}  // namespace culebra

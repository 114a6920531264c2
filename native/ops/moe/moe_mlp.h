// moe_mlp: its plan and its columns.
#pragma once
#include "abi/indices.h"
#include "abi/op.h"
#include "ops/moe/experts.h"
#include "ops/moe/moe_decode.h"
#include "ops/moe/moe_mlp_many.h"
#include "ops/moe/moe_route.h"

namespace culebra {

// What kernels need of a call.
struct MoeMlpOperands {
  DType dtype = DType::bf16;
  const void* x = nullptr;
  int64_t x_stride = 0;
  void* y = nullptr;
  int64_t y_stride = 0;
  ExpertMatrices w13, w2;
  const void* b13 = nullptr;
  int64_t b13_stride = 0;
  const void* b2 = nullptr;
  int64_t b2_stride = 0;
  const float* weights = nullptr;
  int64_t weights_stride = 0;
  const int32_t* ids = nullptr;
  int64_t ids_stride = 0;
  int64_t tokens = 0, slots_per_token = 0, width = 0, expert_width = 0, experts = 0;  // T, k, D, I, E
  int32_t act = 0;
  float alpha = 0, limit = 0;
  bool validate = false, batch_invariant = false;

  // Given logits instead of weights and ids: the routing comes first.
  bool routed = false;
  MoeRouteParams route;
  int32_t group_bits = -1;  // int4: log2 of the group; -1: a row is one group

  MoeDecodePlan decode;  // cuda and simt; where it does not suit: MoeMlpParams::many
  void* workspace = nullptr;
};

// Given ids (abi/indices.h).
struct MoeMlpIds {
  const int32_t* ids;
  int64_t ids_stride, tokens, k, experts;

  CUL_NUMERIC int32_t id(int64_t slot) const { return ids[slot / k * ids_stride + slot % k]; }
  int64_t index_items() const { return tokens * k; }
  CUL_NUMERIC bool valid(int64_t slot) const { return id(slot) >= -1 && id(slot) < experts; }
  std::string invalid_text(int64_t slot) const;
};

struct MoeMlpParams : MoeMlpOperands {
  MoeMlpMany many;  // cuda, simt

  // cpu. Tokens pass in chunks, which bounds the workspace; a chunk's slots are grouped by expert.
  int64_t chunk = 0;

  // Pairs of matrix rows of a cpu work item: gate and up rows of w13, neighbouring rows of w2.
  static constexpr int64_t kBlockPairs = kExpertBlockPairs;
  int64_t up_blocks() const { return (expert_width + kBlockPairs - 1) / kBlockPairs; }
  int64_t down_blocks() const { return (width + 2 * kBlockPairs - 1) / (2 * kBlockPairs); }

  MoeMlpIds indices() const { return {ids, ids_stride, tokens, slots_per_token, experts}; }
  int64_t chunk_slots() const { return chunk * slots_per_token; }
  int64_t width_pitch() const { return (width + 15) / 16 * 16; }
  int64_t expert_width_pitch() const { return (expert_width + 15) / 16 * 16; }

  // The workspace: f32 rows padded to their pitch (inputs [chunk], hidden and outputs [chunk * k]), then indices.
  float* inputs() const { return static_cast<float*>(workspace); }
  float* hidden() const { return inputs() + chunk * width_pitch(); }
  float* outputs() const { return hidden() + chunk_slots() * expert_width_pitch(); }
  int32_t* slots() const { return reinterpret_cast<int32_t*>(outputs() + chunk_slots() * width_pitch()); }
  int32_t* offsets() const { return slots() + chunk_slots(); }  // [E+1]: where an expert's slots begin
  int32_t* active() const { return offsets() + experts + 1; }   // experts that have slots
  uint64_t workspace_bytes() const;
};

MoeMlpParams check_moe_mlp(const Call& call, const cul_moe_mlp_args& args);

CUL_DECLARE_COLUMNS(moe_mlp, MoeMlpParams)

}  // namespace culebra

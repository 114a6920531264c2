// pack_weights, unpack_weights and their plan: from a checkpoint's layout to that of a backend's kernel, and back.
//
// Weights lie in the backend's layout for their kind (packed_layouts.h). Row j of the packed k is row perm[j] of the checkpoint
// (no perm: j), -1 or beyond k: padding, whose weights equal their zero point and so contribute exactly 0. Scales are
// [groups, n_padded] (a column for each block of rows that shares one) in plain order, 0 in padding.
#pragma once
#include <vector>

#include "abi/op.h"
#include "ops/gemm/packing/checkpoint.h"
#include "ops/gemm/packing/packed_layouts.h"

namespace culebra {

struct PackParams {
  Checkpoint checkpoint;
  WeightKind kind{0};
  int64_t n_padded, k_padded;
  int64_t group, groups;        // packed
  const int32_t* perm;          // [k_padded], or null
  const int32_t* group_source;  // [groups], or null; -1: a group of padding
  uint8_t* packed;
  void* scales;      // [groups, n_padded / scale_block]
  uint8_t* zeros;    // [groups, n_padded], or null
};

struct UnpackParams {
  PackParams packing;  // checkpoint is written, the rest read
  int32_t* row_of;     // workspace, with perm: packed row of each checkpoint row [k], first packed group of each group [groups]
  int32_t* group_of;
};

// The multiples to which a backend pads n and k.
struct PackedTile {
  int64_t n, k;
};
PackedTile packed_tile(int32_t backend, WeightKind kind);
constexpr int64_t packed_bytes(WeightKind kind, int64_t n_padded, int64_t k_padded) {
  return n_padded * k_padded / 8 * kind.packed_bits();
}

struct PackPlan {
  cul_pack_plan_result result{};
  std::vector<int32_t> perm, group_source;  // empty unless result.permuted
};
// Pure: reads zeros, g_idx and 2:4 weights from host memory. Throws Refusal.
PackPlan plan_packing(const DeviceCaps& caps, const cul_checkpoint* checkpoint);

PackParams check_pack_weights(const Call& call, const cul_pack_weights_args& args);
UnpackParams check_unpack_weights(const Call& call, const cul_unpack_weights_args& args);

CUL_DECLARE_COLUMNS(pack_weights, PackParams)
CUL_DECLARE_COLUMNS(unpack_weights, UnpackParams)

}  // namespace culebra

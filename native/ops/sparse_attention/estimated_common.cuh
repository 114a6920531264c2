// What the kernels of estimated sparse attention have in common.
#pragma once
#include "ops/attention/tile/tour.cuh"
#include "ops/sparse_attention/estimated_sparse_attention.h"

namespace culebra::CUL_DEVICE_NS::sale {

using Params = EstimatedParams;

inline constexpr int kThreads = 128, kWarps = kThreads / 32;
inline constexpr int kGroup = 16;  // keys that share a scale; blocks of keys are multiples of it

template <class E>
CUL_DEVICE_FN E* in_workspace(const Params& p, uint64_t at) {
  return reinterpret_cast<E*>(static_cast<char*>(p.workspace) + at);
}
// Sequence b's groups of keys are numbered from here.
CUL_DEVICE_FN int64_t first_group(const Params& p, int b) { return p.cu_k[b] / kGroup + b; }

// Where a query block of a head lies: slots as EstimatedPlan numbers them.
struct Block {
  int sequence;
  int64_t index, queries, keys;  // index: of the block within the sequence
};
CUL_DEVICE_FN Block find_block(const Params& p, int64_t slot) {
  const SequenceTile at = find_sequence(p.cu_q, static_cast<int>(p.sequences), 1, static_cast<int>(p.block_q), slot);
  if (at.sequence < 0) return {-1, 0, 0, 0};
  const int b = at.sequence;
  return {b, at.tile, p.cu_q[b + 1] - p.cu_q[b], p.cu_k[b + 1] - p.cu_k[b]};
}

// The estimate on wgmma, for compute capability 9.0, in place of estimate_kernel: a bit for each key block of a query block that is not
// certain, as lists_from_bits_kernel reads them.
void estimate_hopper(const Params& p, int64_t groups, int64_t first_slot, int64_t slots, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS::sale

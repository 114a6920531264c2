// What the kernels of sparse-linear attention have in common: the workspace, and the feature map.
#pragma once
#include "device/barrier.h"
#include "device/bits.h"
#include "device/launch.h"
#include "device/warp.h"
#include "device/block_divide.h"
#include "ops/sparse_attention/sparse_linear_attention.h"

namespace culebra::CUL_DEVICE_NS::sla {

using Params = SparseLinearParams;

// The heads that keys, states and sums of the workspace belong to at present.
struct Group {
  int64_t first, heads;
};

template <class E>
CUL_DEVICE_FN E* in_workspace(const Params& p, uint64_t at) {
  return reinterpret_cast<E*>(static_cast<char*>(p.workspace) + at);
}

// A channel of phi, unless it is softmax.
CUL_DEVICE_FN float feature(int phi, float x) { return x > 0 || x != x ? (phi == CUL_SLA_RELU ? x : x + 1) : phi == CUL_SLA_RELU ? 0.0f : expf(x); }

}  // namespace culebra::CUL_DEVICE_NS::sla

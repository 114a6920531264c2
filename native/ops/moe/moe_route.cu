#include <algorithm>

#include "device/launch.h"
#include "ops/moe/moe_route.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kWarps = 4;

// Computes: the k experts of the largest score + bias of every token, among the best groups, and their weights.
// Shapes:   logits [T,E], bias [E], E up to 2048 -> weights, ids [T, k + shared], k up to 32.
// Layouts:  row-major, any row strides; logits f32, f16 or bf16.
// Tiles:    a token a warp, four a block.
// Shared:   a key of 4 bytes an expert and a group, a warp.
// Order:    sums over experts: a lane's own, every 32nd, then by halves; each token by itself.
// Numerics: f32; scores are compared as they are rounded, equal ones by the lowest id.
// Needs:    sm_80 (redux). Limit: 4 T E bytes of logits.
// Source:   README.md, "Routing".
__global__ void __launch_bounds__(kWarps * 32) route_tokens(MoeRouteParams p) {
  CUL_DYNAMIC_SHARED(uint32_t, scratch, 16);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int64_t token = int64_t{blockIdx.x} * kWarps + warp; token < p.tokens; token += int64_t{gridDim.x} * kWarps)
    route_token(p, token, scratch + warp * route_scratch_words(p), p.weights + token * p.weights_stride, p.ids + token * p.ids_stride);
}

}  // namespace

void moe_route(const MoeRouteParams& p, NativeStream stream) {
  if (p.tokens == 0) return;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((p.tokens + kWarps - 1) / kWarps, INT32_MAX));
  launch(route_tokens, dim3(blocks), dim3(kWarps * 32), static_cast<size_t>(kWarps * route_scratch_words(p)) * sizeof(uint32_t), stream, p);
}

}  // namespace culebra::CUL_DEVICE_NS

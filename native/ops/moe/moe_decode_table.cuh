// Which experts the tokens of a launch have selected, in ascending order: each block finds out by itself.
#pragma once
#include "device/atomic.h"
#include "device/barrier.h"
#include "device/warp.h"
#include "ops/moe/moe_mlp.h"
#include "ops/moe/moe_route.cuh"

namespace culebra::CUL_DEVICE_NS {

struct DecodeTable {
  const MoeMlpOperands& p;
  unsigned char* memory;
  int64_t first_token;
  int tokens;
  int words;
  uint32_t* used;   // [words]: bit e % 32 of word e / 32: expert e is selected
  int32_t* before;  // [words]: how many are in earlier words; then the number of all
  int32_t* list;    // of the selected ones
  float* routed_weights;
  int32_t* routed_ids;

  CUL_DEVICE_FN DecodeTable(const MoeMlpOperands& p, unsigned char* memory, int64_t first_token, int tokens)
      : p(p),
        memory(memory),
        first_token(first_token),
        tokens(tokens),
        words(static_cast<int>((p.experts + 31) / 32)),
        used(reinterpret_cast<uint32_t*>(memory)),
        before(reinterpret_cast<int32_t*>(used + words)),
        list(reinterpret_cast<int32_t*>(memory + p.decode.list_at)),
        routed_weights(reinterpret_cast<float*>(memory + p.decode.routing_at)),
        routed_ids(reinterpret_cast<int32_t*>(routed_weights + tokens * p.slots_per_token)) {}

  CUL_DEVICE_FN int32_t id(int token, int j) const {
    return p.routed ? routed_ids[token * p.slots_per_token + j] : p.ids[(first_token + token) * p.ids_stride + j];
  }
  CUL_DEVICE_FN float weight(int token, int j) const {
    return p.routed ? routed_weights[token * p.slots_per_token + j] : p.weights[(first_token + token) * p.weights_stride + j];
  }
  // The place of a selected expert in the list.
  CUL_DEVICE_FN int index(int32_t e) const { return before[e / 32] + __popc(used[e / 32] & ((1u << (e % 32)) - 1)); }

  // All threads of the block; returns how many experts there are.
  CUL_DEVICE_FN int build() const {
    const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), lane = thread % 32, warp = thread / 32;
    for (int w = thread; w < words; w += threads) used[w] = 0;
    if (p.routed && warp < tokens) {
      // The ring is not in use yet.
      auto* const scratch = reinterpret_cast<uint32_t*>(memory + p.decode.ring_at) + warp * route_scratch_words(p.route);
      route_token(p.route, first_token + warp, scratch, routed_weights + warp * p.slots_per_token, routed_ids + warp * p.slots_per_token);
    }
    __syncthreads();
    for (int slot = thread; slot < tokens * p.slots_per_token; slot += threads) {
      const int token = slot / static_cast<int>(p.slots_per_token);
      const int32_t e = id(token, slot - token * static_cast<int>(p.slots_per_token));
      if (e >= 0 && e < p.experts) atomicOr(&used[e / 32], 1u << (e % 32));
    }
    __syncthreads();
    if (warp == 0) {
      int total = 0;
      for (int first = 0; first < words; first += 32) {
        const int w = first + lane, own = w < words ? __popc(used[w]) : 0, up_to_here = warp_inclusive_sum(own);
        if (w < words) before[w] = total + up_to_here - own;
        total += __shfl_sync(kFullMask, up_to_here, 31);
      }
      if (lane == 0) before[words] = total;
    }
    __syncthreads();
    for (int w = thread; w < words; w += threads) {
      int at = before[w];
      for (uint32_t rest = used[w]; rest; rest &= rest - 1) list[at++] = w * 32 + __ffs(static_cast<int>(rest)) - 1;
    }
    __syncthreads();
    return before[words];
  }
};

}  // namespace culebra::CUL_DEVICE_NS

// Routing of one token by one warp: also the beginning of moe_mlp's kernel for few tokens.
#pragma once
#include "device/portable.h"
#include "device/warp.h"
#include "ops/moe/moe_route.h"

namespace culebra::CUL_DEVICE_NS {

// Floats as integers of the same order, -0 below +0 (no key is -0: a sum rounded to nearest is not); NaN is below -inf, and 0, which no
// float becomes, stands for what has been taken.
CUL_DEVICE_FN uint32_t route_key(float x) {
  const uint32_t bits = __float_as_uint(x);
  if (x != x) return 1;
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
CUL_DEVICE_FN float route_value(uint32_t key) { return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key); }

// The largest of n keys in turn, the lowest index of equal ones. Lane l looks at l, l + 32, ... and keeps in mind its best.
struct RouteSelection {
  uint32_t* keys;
  int n, lane;
  uint32_t best = 0;
  int at = 0;

  CUL_DEVICE_FN RouteSelection(uint32_t* keys, int n, int lane) : keys(keys), n(n), lane(lane) { look(); }

  CUL_DEVICE_FN void look() {
    best = 0;
    at = lane;
#pragma unroll 4
    for (int i = lane; i < n; i += 32) {
      const uint32_t key = keys[i];
      if (key > best) {
        best = key;
        at = i;
      }
    }
  }
  // Its index, in every lane; its key becomes 0.
  CUL_DEVICE_FN int take() {
    const uint32_t top = __reduce_max_sync(kFullMask, best);
    const int index = __reduce_min_sync(kFullMask, best == top ? at : 0x7fffffff);
    if (index % 32 == lane) {
      keys[index] = 0;
      look();
    }
    return index;
  }
};

// 32-bit words of scratch in shared memory that a warp needs.
CUL_NUMERIC int64_t route_scratch_words(const MoeRouteParams& p) { return p.experts + (p.groups > 1 ? p.groups : 0); }

// Scores of one row: what the largest logit and the sum over all experts make of a logit.
struct RouteScore {
  bool sigmoid;
  float max, sum;

  CUL_DEVICE_FN float operator()(float logit) const {
    const float score = sigmoid ? 1.0f / (1.0f + expf(-logit)) : expf(logit - max) / sum;
    return score - score == 0 ? score : 0.0f;  // what is not finite counts as 0
  }
};

// A row of logits. Its type is looked at anew for each: three copies of the routine below would be more code than that is work.
struct LogitRow {
  const void* data;
  DType dtype;
  int64_t begin;

  CUL_DEVICE_FN float operator[](int i) const {
    if (dtype == DType::f32) return static_cast<const float*>(data)[begin + i];
    if (dtype == DType::f16) return to_float(static_cast<const half_t*>(data)[begin + i]);
    return to_float(static_cast<const bfloat16_t*>(data)[begin + i]);
  }
};

// weights, ids: [k + shared] of this token. All 32 lanes call.
CUL_DEVICE_FN void route_token(const MoeRouteParams& p, int64_t token, uint32_t* scratch, float* weights, int32_t* ids) {
  const int lane = static_cast<int>(threadIdx.x) % 32, experts = static_cast<int>(p.experts);
  const LogitRow logits{p.logits, p.dtype, token * p.logits_stride};
  RouteScore score{p.sigmoid, -INFINITY, 1};
  if (!p.sigmoid) {
    for (int i = lane; i < experts; i += 32) score.max = max(score.max, logits[i]);  // of a NaN and a number, the number
    score.max = warp_max(score.max);
    score.sum = 0;
    for (int i = lane; i < experts; i += 32) score.sum += expf(logits[i] - score.max);
    score.sum = warp_sum(score.sum);
  }
  __syncwarp();  // scratch may have been another row's
  for (int i = lane; i < experts; i += 32) {
    const float s = score(logits[i]);
    scratch[i] = route_key(p.bias ? s + p.bias[i] : s);
  }
  if (p.groups > 1) {
    uint32_t* const group_keys = scratch + experts;
    const int size = experts / p.groups;
    __syncwarp();
    for (int g = lane; g < p.groups; g += 32) {
      float best = -INFINITY, second = -INFINITY;
      for (int i = g * size; i < (g + 1) * size; ++i) {
        const float value = route_value(scratch[i]);
        if (value > best) {
          second = best;
          best = value;
        } else if (value > second) {
          second = value;
        }
      }
      group_keys[g] = route_key(p.bias && size > 1 ? best + second : best);
    }
    RouteSelection selection(group_keys, p.groups, lane);
    for (int i = 0; i < p.kept_groups; ++i) selection.take();
    __syncwarp();
    for (int i = lane; i < experts; i += 32)
      if (group_keys[i / size] != 0) scratch[i] = 0;
  }
  RouteSelection selection(scratch, experts, lane);
  int id = 0;
  for (int j = 0; j < p.k; ++j) {
    const int next = selection.take();
    if (lane == j) id = next;
  }
  float weight = lane < p.k ? score(logits[id]) : 0.0f;
  if (p.renormalize) weight /= warp_sum(weight) + 1e-20f;
  if (lane < p.k) {
    weights[lane] = weight * p.scale;
    ids[lane] = id;
  }
  for (int j = lane; j < p.shared; j += 32) {
    weights[p.k + j] = 1;
    ids[p.k + j] = experts + j;
  }
}

}  // namespace culebra::CUL_DEVICE_NS

// linear_attention on the device: q and k pass their feature map, the normaliser is a pass of its own, the rest is a recurrence without
// decay.
#include "ops/linear_attention/linear_attention.h"
#include "device/validate.h"
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = LinearAttentionParams;

constexpr int kWarps = 4;
constexpr int kPerLane = 4;  // columns of a head up to 128 behind hedgehog, 256 behind the others: two passes of the loops below

CUL_DEVICE_FN float mapped(FeatureMap map, float x) {
  switch (map) {
    case FeatureMap::elu1: return x > 0 ? x + 1 : expf(x);
    case FeatureMap::relu: return x > 0 ? x : 0.0f;
    case FeatureMap::squared_relu: return x > 0 ? x * x : 0.0f;
    default: return x;
  }
}

// Computes: q and k behind elu1, relu, squared_relu or hedgehog (softmax over [x, -x])
// Shapes:   q, k [B,T,H,K] to [B,T,H,F], F = K or 2K
// Layouts:  q, k any strides, f32, f16 or bf16; results dense, the same type
// Tiles:    a warp has a row
// Shared:   none
// Order:    hedgehog's sum: a lane's columns in order, then a butterfly
// Numerics: f32, rounded once to the type
// Needs:    sm_80. Limit: q and k in, their features out
// Source:   Zhang et al., arXiv:2402.04347 (hedgehog); Katharopoulos et al., arXiv:2006.16236 (elu + 1)
__global__ void __launch_bounds__(32 * kWarps) feature_map_kernel(Params p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t rows = p.batch * p.sequences.tokens * p.key_heads, F = p.features_dim();
  for (int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; item < 2 * rows; item += int64_t{gridDim.x} * kWarps) {
    const bool key = item >= rows;
    const int64_t row = key ? item - rows : item, token_row = divide(row, p.key_heads), head = row - token_row * p.key_heads;
    const int64_t batch = divide(token_row, p.sequences.tokens), token = token_row - batch * p.sequences.tokens;
    const RecurrenceParams::Heads& x = key ? p.k : p.q;
    const int64_t from = batch * x.batch + token * x.token + head * x.head, to = row * F;
    void* const out = key ? p.k_features : p.q_features;
    if (p.features != FeatureMap::hedgehog) {
      for (int64_t c = lane; c < p.key_dim; c += 32) store_one(p.dtype, out, to + c, mapped(p.features, load_one(p.dtype, x.data, from + c)));
      continue;
    }
    float value[kPerLane], top = 0, sum = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int64_t c = lane + 32 * i;
      value[i] = c < p.key_dim ? load_one(p.dtype, x.data, from + c) : 0.0f;
      top = fmaxf(top, fabsf(value[i]));
    }
    top = warp_max(top);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (lane + 32 * i < p.key_dim) sum += expf(value[i] - top) + expf(-value[i] - top);
    sum = warp_sum(sum);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int64_t c = lane + 32 * i;
      if (c >= p.key_dim) continue;
      store_one(p.dtype, out, to + c, expf(value[i] - top) / sum);
      store_one(p.dtype, out, to + p.key_dim + c, expf(-value[i] - top) / sum);
    }
  }
}

// Computes: a row of zeros
// Shapes:   [F]
// Layouts:  dense, p.dtype
// Tiles:    one block
// Shared:   none
// Order:    none
// Numerics: exact
// Needs:    sm_80
// Source:   none
__global__ void __launch_bounds__(256) zero_row_kernel(Params p) {
  for (int64_t i = threadIdx.x; i < p.features_dim(); i += 256) store_one(p.dtype, p.zeros, i, 0.0f);
}

}  // namespace

void linear_attention(const Params& p, NativeStream stream) {
  if (p.sequences.count == 0) return;
  if (p.validate) validate(p.op, p, stream);
  if (p.wide()) return run_wide_linear_attention(p, stream);
  const int64_t rows = 2 * p.batch * p.sequences.tokens * p.key_heads, blocks = (rows + kWarps - 1) / kWarps;
  if (p.features != FeatureMap::none && rows > 0)
    launch(feature_map_kernel, dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)), dim3(32 * kWarps), 0, stream, p);
  if (p.normalize) run_normaliser(p.normaliser(), stream);
  RecurrenceParams inner = p.inner();
  if (p.causal) return recurrence(inner, stream);

  // Both directions: once to the last state, and once more from it, with keys that add nothing.
  if (!p.final.data) inner.final = p.work_states();
  recurrence(inner, stream);
  launch(zero_row_kernel, dim3(1), dim3(256), 0, stream, p);
  inner.k = {p.zeros, 0, 0, 0};
  inner.initial = inner.final;
  inner.final = {};
  inner.checkpoints = {};
  inner.checkpoint_every = 0;
  const int32_t* const read = inner.sequences.read_index;
  inner.sequences.read_index = inner.sequences.write_index;
  inner.sequences.write_index = read;
  recurrence(inner, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

// The linear part of sparse-linear attention by FMAs, with states and sums in f32: for f32 operands, and half ones of D above 128 or no multiple of 16.
#pragma once
#include "ops/sparse_attention/sla_common.cuh"

namespace culebra::CUL_DEVICE_NS::sla {

inline constexpr int kThreads = 128, kWarps = kThreads / 32;

CUL_DEVICE_FN int64_t state_size(const Params& p) { return (p.dim + 1) * p.dim; }

// phi of a row of dim values, in place, by one warp.
CUL_DEVICE_FN void feature_map(int phi, float* x, int dim, int lane) {
  if (phi != CUL_SLA_SOFTMAX) {
    for (int c = lane; c < dim; c += 32) x[c] = feature(phi, x[c]);
    return;
  }
  float highest = -__builtin_huge_valf(), sum = 0;
  for (int c = lane; c < dim; c += 32) highest = fmaxf(highest, x[c]);
  highest = warp_max(highest);
  for (int c = lane; c < dim; c += 32) {
    x[c] = expf(x[c] - highest);
    sum += x[c];
  }
  // Not a division: that is a call, around which registers are spilled.
  const float inverse = fast_reciprocal(warp_sum(sum));
  for (int c = lane; c < dim; c += 32) x[c] *= inverse;
}

// Computes: of a key block sum_t phi(k_t)_i v_t for each channel i, and sum_t phi(k_t)
// Shapes:   k, v [B,H,L,D] -> states f32 [BH,n,D+1,D]
// Layouts:  rows anywhere, channels contiguous
// Tiles:    a key block a block of threads; 16 tokens at a time; a thread 8 channels i of one of v
// Shared:   16 rows of phi(k) and v in f32
// Order:    tokens ascending
// Numerics: f32 FMA
// Needs:    sm_80. Limit: 2 block D^2 operations of the FMA pipes; the bytes of the states
// Source:   SLA, arXiv:2509.24006
template <class T>
__global__ void __launch_bounds__(kThreads) fma_states_kernel(Params p, Group group) {
  constexpr int kAtOnce = 16, kChannels = 8;
  CUL_DYNAMIC_SHARED(float, shared, 16);
  const int dim = static_cast<int>(p.dim), lane = static_cast<int>(threadIdx.x) % 32;
  float* const keys = shared;
  float* const values = shared + kAtOnce * dim;
  const auto [head, j] = block_divide(blockIdx.x, p.blocks);
  const auto [b, h] = block_divide(group.first + head, p.heads);
  float* const state = in_workspace<float>(p, p.plan.states_at) + blockIdx.x * state_size(p);
  const int tiles = (dim + kChannels - 1) / kChannels;
  for (int64_t first = j * p.block; first < p.block_end(j); first += kAtOnce) {
    const int tokens = static_cast<int>(min(int64_t{kAtOnce}, p.block_end(j) - first));
    __syncthreads();
    for (int t = static_cast<int>(threadIdx.x) / 32; t < tokens; t += kWarps) {
      const T* const k = p.k.at<const T>(b, h, first + t);
      const T* const v = p.v.at<const T>(b, h, first + t);
      for (int c = lane; c < dim; c += 32) {
        keys[t * dim + c] = to_float(k[c]);
        values[t * dim + c] = to_float(v[c]);
      }
      feature_map(p.phi, keys + t * dim, dim, lane);
    }
    __syncthreads();
    const bool start = first == j * p.block;
    for (int item = static_cast<int>(threadIdx.x); item < tiles * dim; item += kThreads) {
      const int i = item / dim * kChannels, c = item % dim;
      float sums[kChannels];
#pragma unroll
      for (int e = 0; e < kChannels; ++e) sums[e] = start || i + e >= dim ? 0.0f : state[(i + e) * dim + c];
      for (int t = 0; t < tokens; ++t) {
        const float v = values[t * dim + c];
#pragma unroll
        for (int e = 0; e < kChannels; ++e)
          if (i + e < dim) sums[e] = fmaf(keys[t * dim + i + e], v, sums[e]);
      }
#pragma unroll
      for (int e = 0; e < kChannels; ++e)
        if (i + e < dim) state[(i + e) * dim + c] = sums[e];
    }
    for (int c = static_cast<int>(threadIdx.x); c < dim; c += kThreads) {
      float sum = start ? 0.0f : state[dim * dim + c];
      for (int t = 0; t < tokens; ++t) sum += keys[t * dim + c];
      state[dim * dim + c] = sum;
    }
  }
}

// Computes: the states of the key blocks that a query block's linear part has, added up; never by taking some off a total
// Shapes:   states, mask -> sums f32 [BH,n,D+1,D], or with all blocks [BH,1,D+1,D]
// Layouts:  as the workspace
// Tiles:    kRows query blocks and 128 elements of the state a block: an element is read once for all of them
// Shared:   none; the mask from L1
// Order:    key blocks ascending
// Numerics: f32
// Needs:    sm_80. Limit: n^2 D^2 additions a head; the bytes of the states n / kRows times, from L2
// Source:   SLA, arXiv:2509.24006
template <int kRows>
__global__ void __launch_bounds__(kThreads) fma_sum_states_kernel(Params p, Group group, int64_t parts) {
  const int64_t rows = p.sum_rows(), row_groups = block_divide(rows + kRows - 1, kRows).quotient;
  const auto [item, part] = block_divide(blockIdx.x, parts);
  const auto [head, row_group] = block_divide(item, row_groups);
  const int64_t element = part * kThreads + threadIdx.x, first = row_group * kRows;
  const bool there = element < state_size(p);
  const float* const states = in_workspace<const float>(p, p.plan.states_at) + head * p.blocks * state_size(p) + element;
  const uint32_t* const mask = in_workspace<const uint32_t>(p, p.plan.mask_at) + ((group.first + head) * p.blocks + first) * p.mask_words();
  float sums[kRows] = {};
  for (int64_t j = 0; j < p.blocks; ++j) {
    const float x = there ? states[j * state_size(p)] : 0.0f;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      if (first + i < rows && (mask[i * p.mask_words() + j / 32] >> Params::mask_bit(j) & 1)) sums[i] += x;
  }
  float* const to = in_workspace<float>(p, p.plan.sums_at) + (head * rows + first) * state_size(p) + element;
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    if (there && first + i < rows) to[i * state_size(p)] = sums[i];
}

// Computes: o += proj_w O_l + proj_b, O_l = phi(q) S / (phi(q) . z + eps) with the query block's sums S, z
// Shapes:   q [B,H,L,D], sums, proj_w [D,D], proj_b [D] -> o [B,H,L,D], which holds the softmax part
// Layouts:  rows anywhere, channels contiguous
// Tiles:    16 tokens of a query block a block; a thread every 128th channel of all of them
// Shared:   rows of phi(q), then of O_l, and their denominators, in f32
// Order:    channels ascending
// Numerics: f32 FMA; the softmax part has been rounded to o's type once before
// Needs:    sm_80. Limit: 4 D^2 operations a token of the FMA pipes
// Source:   SLA, arXiv:2509.24006
template <class T>
__global__ void __launch_bounds__(kThreads) fma_linear_part_kernel(Params p, Group group, int64_t tiles) {
  constexpr int kAtOnce = 16;
  CUL_DYNAMIC_SHARED(float, shared, 16);
  CUL_SHARED(float, inverse, [kAtOnce]);
  const int dim = static_cast<int>(p.dim), lane = static_cast<int>(threadIdx.x) % 32;
  float* const rows = shared;
  float* const linear = shared + kAtOnce * dim;
  const auto [row, tile] = block_divide(blockIdx.x, tiles);
  const auto [head, i] = block_divide(row, p.blocks);
  const auto [b, h] = block_divide(group.first + head, p.heads);
  const int64_t first = i * p.block + tile * kAtOnce;
  const int tokens = static_cast<int>(min(int64_t{kAtOnce}, p.block_end(i) - first));
  if (tokens <= 0) return;
  if (p.has_linear()) {
    const float* const sums = in_workspace<const float>(p, p.plan.sums_at) + p.sum_row(head, i) * state_size(p);
    for (int t = static_cast<int>(threadIdx.x) / 32; t < tokens; t += kWarps) {
      const T* const q = p.q.at<const T>(b, h, first + t);
      for (int c = lane; c < dim; c += 32) rows[t * dim + c] = to_float(q[c]);
      feature_map(p.phi, rows + t * dim, dim, lane);
      float norm = 0;
      for (int c = lane; c < dim; c += 32) norm = fmaf(rows[t * dim + c], sums[dim * dim + c], norm);
      norm = warp_sum(norm);
      if (lane == 0) inverse[t] = 1 / (norm + p.eps);
    }
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.x); c < dim; c += kThreads) {
      float sum[kAtOnce] = {};
      for (int k = 0; k < dim; ++k) {
        const float s = sums[k * dim + c];
#pragma unroll
        for (int t = 0; t < kAtOnce; ++t)
          if (t < tokens) sum[t] = fmaf(rows[t * dim + k], s, sum[t]);
      }
#pragma unroll
      for (int t = 0; t < kAtOnce; ++t)
        if (t < tokens) linear[t * dim + c] = sum[t] * inverse[t];
    }
    __syncthreads();
  }
  const T* const bias = static_cast<const T*>(p.proj_b);
  for (int c = static_cast<int>(threadIdx.x); c < dim; c += kThreads) {
    const T* const w = p.proj_w ? static_cast<const T*>(p.proj_w) + c * p.proj_stride : nullptr;
    float sum[kAtOnce] = {};
    if (p.has_linear() && w)
      for (int k = 0; k < dim; ++k) {
        const float x = to_float(w[k]);
#pragma unroll
        for (int t = 0; t < kAtOnce; ++t)
          if (t < tokens) sum[t] = fmaf(x, linear[t * dim + k], sum[t]);
      }
    const float add = bias ? to_float(bias[c]) : 0.0f;
#pragma unroll
    for (int t = 0; t < kAtOnce; ++t) {
      if (t >= tokens) continue;
      T* const o = p.o.at<T>(b, h, first + t) + c;
      *o = from_float<T>(to_float(*o) + (p.has_linear() && !w ? linear[t * dim + c] : sum[t] + add));
    }
  }
}

}  // namespace culebra::CUL_DEVICE_NS::sla

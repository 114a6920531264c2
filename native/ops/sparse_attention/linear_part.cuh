// The linear part of sparse-linear attention on tensor cores, for half operands: the sums of states over a query block's linear key blocks,
// a product of a 0/1 mask and states; and what a token makes of its block's sums.
#pragma once
#include "device/barrier.h"
#include "device/bits.h"
#include "device/launch.h"
#include "device/mma.h"
#include "device/warp.h"
#include "ops/kv_cache/block_divide.h"
#include "ops/sparse_attention/sparse_linear_attention.h"

namespace culebra::CUL_DEVICE_NS::sla {

using Params = SparseLinearParams;

inline constexpr int kThreads = 128, kWarps = kThreads / 32;

template <class E>
CUL_DEVICE_FN E* in_workspace(const Params& p, uint64_t at) {
  return reinterpret_cast<E*>(static_cast<char*>(p.workspace) + at);
}
CUL_DEVICE_FN int64_t state_size(const Params& p) { return (p.dim + 1) * p.dim; }

// phi of a row of dim values, in place, by one warp.
CUL_DEVICE_FN void feature_map(int phi, float* x, int dim, int lane) {
  if (phi != CUL_SLA_SOFTMAX) {
    for (int c = lane; c < dim; c += 32) {
      const float v = x[c];
      x[c] = v > 0 || v != v ? (phi == CUL_SLA_RELU ? v : v + 1) : phi == CUL_SLA_RELU ? 0.0f : expf(v);
    }
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

// Two f32 as two bf16 each: the nearest ones, and what they leave. Together 16 bits of mantissa.
struct Split {
  uint32_t high, low;
};
CUL_DEVICE_FN Split split(float a, float b) {
  const uint32_t high = pack2<bfloat16_t>(a, b);
  return {high, pack2<bfloat16_t>(a - low_float<bfloat16_t>(high), b - high_float<bfloat16_t>(high))};
}

inline constexpr int kQueries = 64, kColumns = 128, kKeyBlocks = 128;  // of a block of sum_states_half_kernel, and its step

// Computes: the states of the key blocks that a query block's linear part has, added up; never by taking some off a total
// Shapes:   classes [BH,n,n] as a mask, states [BH,n,S] -> sums f32 [BH,n,S], S = (D + 1) D
// Layouts:  as the workspace; a lane reads 8 columns' neighbours of four key blocks
// Tiles:    64 query blocks x 128 elements a block, 32 of these a warp; 16 key blocks a step
// Shared:   the mask of 128 key blocks in bf16, rows padded by 16 bytes
// Order:    key blocks ascending as mma has them, high parts before low ones
// Numerics: the mask is exact in bf16, a state is two bf16; sums f32
// Needs:    sm_80 (mma.m16n8k16). Limit: 4 n^2 S operations a head; the states n / 64 times, from L2
// Source:   SLA, arXiv:2509.24006
inline __global__ void __launch_bounds__(kThreads) sum_states_half_kernel(Params p, int64_t parts) {
  constexpr int kPitch = kKeyBlocks + 8;
  CUL_SHARED(bfloat16_t, mask, [kQueries * kPitch]);
  const int64_t groups = (p.blocks + kQueries - 1) / kQueries, size = state_size(p);
  const auto [item, part] = block_divide(blockIdx.x, parts);
  const auto [head, group] = block_divide(item, groups);
  const int64_t first = group * kQueries;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const float* const states = in_workspace<const float>(p, p.plan.states_at) + head * p.blocks * size;
  const uint8_t* const classes = in_workspace<const uint8_t>(p, p.plan.classes_at) + (head * p.blocks + first) * p.blocks;
  const int64_t column = part * kColumns + warp * 32;
  float sums[kQueries / 16][4][4] = {};
  for (int64_t chunk = 0; chunk < p.blocks; chunk += kKeyBlocks) {
    __syncthreads();
    for (int i = thread; i < kQueries * kKeyBlocks; i += kThreads) {
      const int64_t query = i / kKeyBlocks, j = chunk + i % kKeyBlocks;
      const bool linear = first + query < p.blocks && j < p.blocks && p.is_linear(classes[query * p.blocks + j]);
      mask[query * kPitch + i % kKeyBlocks] = bfloat16_t{static_cast<uint16_t>(linear ? 0x3f80 : 0)};
    }
    __syncthreads();
#pragma unroll 1
    for (int step = 0; step < kKeyBlocks && chunk + step < p.blocks; step += 16) {
      Split b[4][2];
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int64_t c = column + n * 8 + lane / 4, j = chunk + step + half * 8 + lane % 4 * 2;
          const float x = c < size && j < p.blocks ? states[j * size + c] : 0.0f;
          const float y = c < size && j + 1 < p.blocks ? states[(j + 1) * size + c] : 0.0f;
          b[n][half] = split(x, y);
        }
#pragma unroll
      for (int m = 0; m < kQueries / 16; ++m) {
        uint32_t a[4];
        ldmatrix_x4(a, shared_address(mask + (m * 16 + lane % 16) * kPitch + step + lane / 16 * 8));
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          mma_m16n8k16<bfloat16_t>(sums[m][n], a, b[n][0].high, b[n][1].high);
          mma_m16n8k16<bfloat16_t>(sums[m][n], a, b[n][0].low, b[n][1].low);
        }
      }
    }
  }
  float* const to = in_workspace<float>(p, p.plan.sums_at) + (head * p.blocks + first) * size;
#pragma unroll
  for (int m = 0; m < kQueries / 16; ++m)
#pragma unroll
    for (int n = 0; n < 4; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t query = m * 16 + lane / 4 + e / 2 * 8, c = column + n * 8 + lane % 4 * 2 + e % 2;
        if (first + query < p.blocks && c < size) to[query * size + c] = sums[m][n][e];
      }
}

inline constexpr int kTokens = 64, kOut = 64;  // of a block of linear_part_half_kernel, and channels at a time
inline constexpr int64_t kMostDim = 128;       // by shared memory

// Computes: o += proj_w O_l + proj_b, O_l = phi(q) S / (phi(q) . z + eps) with the query block's sums S, z
// Shapes:   q [B,H,L,D], sums, proj_w [D,D], proj_b [D] -> o [B,H,L,D], which holds the softmax part; half, D a multiple of 16 up to 128
// Layouts:  rows anywhere, channels contiguous
// Tiles:    64 tokens of a query block a block, 16 a warp; 64 channels at a time
// Shared:   rows of phi(q) as two bf16, rows of O_l in T, all padded by 16 bytes, and the denominators
// Order:    channels ascending as mma has them; of two-part products high high, high low, low high
// Numerics: phi(q) and S are two bf16 each, O_l is rounded to T, the softmax part has been; sums f32
// Needs:    sm_80 (mma.m16n8k16). Limit: 8 D^2 operations a token; S once for 64 tokens, from L2
// Source:   SLA, arXiv:2509.24006
template <class T>
__global__ void __launch_bounds__(kThreads, 2) linear_part_half_kernel(Params p, int64_t tiles) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  CUL_SHARED(float, inverse, [kTokens]);
  CUL_SHARED(float, rows, [kWarps][kMostDim]);
  const int dim = static_cast<int>(p.dim), pitch = dim + 8;
  auto* const high = reinterpret_cast<bfloat16_t*>(shared);
  auto* const low = high + kTokens * pitch;
  T* const linear = reinterpret_cast<T*>(low + kTokens * pitch);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const auto [row, tile] = block_divide(blockIdx.x, tiles);
  const auto [head, i] = block_divide(row, p.blocks);
  const auto place = block_divide(head, p.heads);
  const int64_t b = place.quotient, h = place.rest, first = i * p.block + tile * kTokens;
  const int tokens = static_cast<int>(min(int64_t{kTokens}, p.block_end(i) - first));
  if (tokens <= 0) return;
  const float* const sums =
      in_workspace<const float>(p, p.plan.sums_at) + (p.mode == CUL_SLA_ALL ? head : head * p.blocks + i) * state_size(p);
  for (int t = warp * 16; t < warp * 16 + 16; ++t) {  // each warp its own rows
    float norm = 0;
    for (int c = lane; c < dim; c += 32) rows[warp][c] = t < tokens ? to_float(p.q.at<const T>(b, h, first + t)[c]) : 0.0f;
    feature_map(p.phi, rows[warp], dim, lane);
    for (int c = lane; c < dim; c += 32) {
      const float x = rows[warp][c];
      const bfloat16_t near = from_float<bfloat16_t>(x);
      high[t * pitch + c] = near;
      low[t * pitch + c] = from_float<bfloat16_t>(x - to_float(near));
      norm = fmaf(x, sums[dim * dim + c], norm);
    }
    norm = warp_sum(norm);
    if (lane == 0) inverse[t] = fast_reciprocal(norm + p.eps);
  }
  __syncwarp();
  const auto operand = [&](const auto* tile, int k) { return shared_address(tile + (warp * 16 + lane % 16) * pitch + k + lane / 16 * 8); };
  const T* const bias = static_cast<const T*>(p.proj_b);
  // A lane's part of 16 tokens and 64 channels, added to o.
  const auto add = [&](const float(&part)[kOut / 8][4], int out) {
#pragma unroll
    for (int n = 0; n < kOut / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int t = warp * 16 + lane / 4 + e / 2 * 8, c = out + n * 8 + lane % 4 * 2 + e % 2;
        if (t >= tokens || c >= dim) continue;
        T* const o = p.o.at<T>(b, h, first + t) + c;
        *o = from_float<T>(to_float(*o) + part[n][e] + (bias ? to_float(bias[c]) : 0.0f));
      }
  };
#pragma unroll 1
  for (int out = 0; out < dim; out += kOut) {
    float part[kOut / 8][4] = {};
#pragma unroll 1
    for (int k = 0; k < dim; k += 16) {
      uint32_t a[4], rest[4];
      ldmatrix_x4(a, operand(high, k));
      ldmatrix_x4(rest, operand(low, k));
#pragma unroll
      for (int n = 0; n < kOut / 8; ++n) {
        if (out + n * 8 >= dim) break;
        const float* const s = sums + (k + lane % 4 * 2) * dim + out + n * 8 + lane / 4;
        const Split x = split(s[0], s[dim]), y = split(s[8 * dim], s[9 * dim]);
        mma_m16n8k16<bfloat16_t>(part[n], a, x.high, y.high);
        mma_m16n8k16<bfloat16_t>(part[n], a, x.low, y.low);
        mma_m16n8k16<bfloat16_t>(part[n], rest, x.high, y.high);
      }
    }
#pragma unroll
    for (int n = 0; n < kOut / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) part[n][e] *= inverse[warp * 16 + lane / 4 + e / 2 * 8];
    if (!p.proj_w) {
      add(part, out);
      continue;
    }
#pragma unroll
    for (int n = 0; n < kOut / 8; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int t = warp * 16 + lane / 4 + half * 8, c = out + n * 8 + lane % 4 * 2;
        if (c < dim) *reinterpret_cast<uint32_t*>(linear + t * pitch + c) = pack2<T>(part[n][2 * half], part[n][2 * half + 1]);
      }
  }
  if (!p.proj_w) return;
  __syncwarp();
#pragma unroll 1
  for (int out = 0; out < dim; out += kOut) {
    float part[kOut / 8][4] = {};
#pragma unroll 1
    for (int k = 0; k < dim; k += 16) {
      uint32_t a[4];
      ldmatrix_x4(a, operand(linear, k));
#pragma unroll
      for (int n = 0; n < kOut / 8; ++n) {
        if (out + n * 8 >= dim) break;
        const T* const w = static_cast<const T*>(p.proj_w) + (out + n * 8 + lane / 4) * p.proj_stride + k + lane % 4 * 2;
        mma_m16n8k16<T>(part[n], a, pack_bits(w[0].bits, w[1].bits), pack_bits(w[8].bits, w[9].bits));
      }
    }
    add(part, out);
  }
}

}  // namespace culebra::CUL_DEVICE_NS::sla

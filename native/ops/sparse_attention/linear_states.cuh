// Sparse-linear attention on tensor cores: the state of each key block, and the sums of states over a query block's linear key blocks, a
// product of a 0/1 mask and states. For half operands. A number is kParts bf16: one where operands are bf16, two (16 bits of mantissa) where
// they are f16, whose sums over all keys would leave f16's range.
#pragma once
#include "device/async_copy.h"
#include "device/mma.h"
#include "ops/sparse_attention/sla_common.cuh"

namespace culebra::CUL_DEVICE_NS::sla {

inline constexpr int kMostDim = 128, kRowPitch = kMostDim + 8;  // rows in shared memory are padded by 16 bytes: no bank is met twice

// Two f32 as two bf16 each: the nearest ones, and what they leave.
struct Split {
  uint32_t high, low;
};
CUL_DEVICE_FN Split split(float a, float b) {
  const uint32_t high = pack2<bfloat16_t>(a, b);
  return {high, pack2<bfloat16_t>(a - low_float<bfloat16_t>(high), b - high_float<bfloat16_t>(high))};
}
// Channels c and c + 1 of a row.
template <class T>
CUL_DEVICE_FN uint32_t load_pair(const T* row, int64_t c, bool aligned) {
  return aligned ? *reinterpret_cast<const uint32_t*>(row + c) : pack_bits(row[c].bits, row[c + 1].bits);
}

inline constexpr int kStateThreads = 256, kStateTokens = 64;
template <int kParts>
inline constexpr int kStateBytes = 2 * kParts * kStateTokens * kRowPitch * 2;

// Computes: of a key block sum_t v_t phi(k_t)^T, and z = sum_t phi(k_t), with phi(k) as rounded for the products
// Shapes:   k, v [B,H,L,D] -> states bf16 [heads,n,kParts,D + 2,D]: rows of v's channels, then z in two parts; D a multiple of 16 up to 128
// Layouts:  rows anywhere, channels contiguous
// Tiles:    a key block a block, 64 tokens at a time; 16 channels of v and all of k a warp
// Shared:   64 rows of phi(k) and of v, in kParts bf16
// Order:    tokens ascending as mma has them; of two-part products high high, high low, low high
// Numerics: sums f32, rounded to kParts bf16
// Needs:    sm_80 (mma.m16n8k16). Limit: the bytes of k and v; 2 D^2 operations a token
// Source:   SLA, arXiv:2509.24006
template <class T, int kParts>
__global__ void __launch_bounds__(kStateThreads, 2) block_states_kernel(Params p, Group group) {
  CUL_DYNAMIC_SHARED(bfloat16_t, shared, 128);
  constexpr int kWarps = kStateThreads / 32, kTile = kStateTokens * kRowPitch;
  bfloat16_t* const keys = shared;
  bfloat16_t* const values = shared + kParts * kTile;
  const int dim = static_cast<int>(p.dim), thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto [head, j] = block_divide(blockIdx.x, p.blocks);
  const auto [b, h] = block_divide(group.first + head, p.heads);
  const auto store = [&](bfloat16_t* tile, int at, float x, float y) {
    const Split parts = split(x, y);
    *reinterpret_cast<uint32_t*>(tile + at) = parts.high;
    if constexpr (kParts == 2) *reinterpret_cast<uint32_t*>(tile + kTile + at) = parts.low;
  };
  float state[kMostDim / 8][4] = {}, z = 0;
#pragma unroll 1
  for (int64_t first = j * p.block; first < p.block_end(j); first += kStateTokens) {
    const int tokens = static_cast<int>(min(int64_t{kStateTokens}, p.block_end(j) - first));
    __syncthreads();
#pragma unroll 2
    for (int t = warp; t < (tokens + 15) / 16 * 16; t += kWarps) {
      float x[kMostDim / 64][2] = {}, highest = -__builtin_huge_valf(), sum = 0;
#pragma unroll
      for (int i = 0; i < kMostDim / 64; ++i) {
        const int c = (lane + 32 * i) * 2;
        if (c >= dim) continue;
        const uint32_t v = t < tokens ? load_pair(p.v.at<const T>(b, h, first + t), c, p.aligned) : 0;
        if constexpr (kParts == 1)
          *reinterpret_cast<uint32_t*>(values + t * kRowPitch + c) = v;
        else
          store(values, t * kRowPitch + c, low_float<T>(v), high_float<T>(v));
        const uint32_t k = t < tokens ? load_pair(p.k.at<const T>(b, h, first + t), c, p.aligned) : 0;
        x[i][0] = low_float<T>(k);
        x[i][1] = high_float<T>(k);
        highest = fmaxf(highest, fmaxf(x[i][0], x[i][1]));
      }
      if (p.phi == CUL_SLA_SOFTMAX) highest = warp_max(highest);
#pragma unroll
      for (int i = 0; i < kMostDim / 64; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          x[i][e] = p.phi == CUL_SLA_SOFTMAX ? expf(x[i][e] - highest) : feature(p.phi, x[i][e]);
          if ((lane + 32 * i) * 2 < dim) sum += x[i][e];
        }
      float factor = t < tokens ? 1.0f : 0.0f;
      if (p.phi == CUL_SLA_SOFTMAX) factor *= fast_reciprocal(warp_sum(sum));
#pragma unroll
      for (int i = 0; i < kMostDim / 64; ++i) {
        const int c = (lane + 32 * i) * 2;
        if (c < dim) store(keys, t * kRowPitch + c, x[i][0] * factor, x[i][1] * factor);
      }
    }
    __syncthreads();
    if (thread < dim)
      for (int t = 0; t < tokens; ++t) {
        z += to_float(keys[t * kRowPitch + thread]);
        if constexpr (kParts == 2) z += to_float(keys[kTile + t * kRowPitch + thread]);
      }
    if (warp * 16 >= dim) continue;
#pragma unroll 1
    for (int t = 0; t < tokens; t += 16) {
      uint32_t v[kParts][4];
#pragma unroll
      for (int part = 0; part < kParts; ++part)
        ldmatrix_x4_trans(v[part], shared_address(values + part * kTile + (t + lane / 16 * 8 + lane % 8) * kRowPitch + warp * 16 + lane / 8 % 2 * 8));
#pragma unroll
      for (int i = 0; i < kMostDim / 16; ++i) {
        if (i * 16 >= dim) break;
        uint32_t k[kParts][4];
#pragma unroll
        for (int part = 0; part < kParts; ++part)
          ldmatrix_x4_trans(k[part], shared_address(keys + part * kTile + (t + lane % 16) * kRowPitch + i * 16 + lane / 16 * 8));
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          mma_m16n8k16<bfloat16_t>(state[2 * i + n], v[0], k[0][2 * n], k[0][2 * n + 1]);
          if constexpr (kParts == 2) {
            mma_m16n8k16<bfloat16_t>(state[2 * i + n], v[0], k[1][2 * n], k[1][2 * n + 1]);
            mma_m16n8k16<bfloat16_t>(state[2 * i + n], v[1], k[0][2 * n], k[0][2 * n + 1]);
          }
        }
      }
    }
  }
  const int64_t size = (p.dim + 2) * p.dim;
  bfloat16_t* const to = in_workspace<bfloat16_t>(p, p.plan.states_at) + int64_t{blockIdx.x} * kParts * size;
  if (thread < dim) {
    const Split parts = split(z, 0);
    to[dim * dim + thread] = bfloat16_t{static_cast<uint16_t>(parts.high)};
    to[dim * dim + dim + thread] = bfloat16_t{static_cast<uint16_t>(parts.low)};
  }
  if (warp * 16 >= dim) return;
#pragma unroll
  for (int i = 0; i < kMostDim / 8; ++i) {
    if (i * 8 >= dim) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Split parts = split(state[i][2 * half], state[i][2 * half + 1]);
      const int at = (warp * 16 + lane / 4 + half * 8) * dim + i * 8 + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(to + at) = parts.high;
      if constexpr (kParts == 2) *reinterpret_cast<uint32_t*>(to + size + at) = parts.low;
    }
  }
}

// A block of sum_states_kernel and its step.
inline constexpr int kSumThreads = 256, kSumRows = 128, kSumColumns = 128, kSumKeys = 32, kSumStages = 3;
inline constexpr int kSumTile = kSumKeys * kRowPitch;
template <int kParts>
inline constexpr int kSumStageBytes = kParts * kSumTile * 2 + kSumRows * 4;

// Computes: the states of the key blocks that a query block's linear part has, added up; never by taking some off a total
// Shapes:   mask [rows,n], states bf16 [heads,n,kParts,S], S = (D + 2) D -> sums bf16 [heads,rows,kParts,D,D], norms f32 [heads,rows,2,D]
// Layouts:  as the workspace; the mask by bits, of which 2.0 in bf16 is one
// Tiles:    128 query blocks x 128 elements a block, 64 x 32 a warp; 32 key blocks a step. Blocks of one part of the states are neighbours
// Shared:   three steps of states and mask
// Order:    key blocks ascending as mma has them, high parts before low ones
// Numerics: the mask is exact, sums f32, rounded to kParts bf16; norms f32 from two parts
// Needs:    sm_80 (mma.m16n8k16). Limit: 2 kParts n^2 S operations a head; the states n / 128 times, from L2
// Source:   SLA, arXiv:2509.24006
template <int kParts>
__global__ void __launch_bounds__(kSumThreads, 2) sum_states_kernel(Params p, Group group) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t rows = p.sum_rows(), square = p.dim * p.dim, size = square + 2 * p.dim, words = p.mask_words();
  const auto [item, row_tile] = block_divide(blockIdx.x, (rows + kSumRows - 1) / kSumRows);
  const auto [head, part_of] = block_divide(item, block_divide(size + kSumColumns - 1, kSumColumns).quotient);
  const int64_t first = row_tile * kSumRows, column = part_of * kSumColumns;
  const bfloat16_t* const states = in_workspace<const bfloat16_t>(p, p.plan.states_at) + head * p.blocks * kParts * size + column;
  const uint32_t* const mask = in_workspace<const uint32_t>(p, p.plan.mask_at) + ((group.first + head) * p.blocks + first) * words;
  const auto tile_of = [&](int step) { return reinterpret_cast<bfloat16_t*>(shared + step % kSumStages * kSumStageBytes<kParts>); };
  const auto mask_of = [&](int step) { return reinterpret_cast<uint32_t*>(tile_of(step) + kParts * kSumTile); };
  const int steps = static_cast<int>(words);
  const auto fetch = [&](int step) {
    if (step < steps) {
#pragma unroll
      for (int part = 0; part < kParts; ++part)
#pragma unroll
        for (int i = 0; i < kSumKeys / 16; ++i) {
          const int key = thread / 16 + i * 16, c = thread % 16 * 8;
          const int64_t block = int64_t{step} * kSumKeys + key;
          const bool inside = block < p.blocks && column + c < (part ? square : size);
          cp_async<16>(shared_address(tile_of(step) + part * kSumTile + key * kRowPitch + c),
                       inside ? states + (block * kParts + part) * size + c : p.workspace, inside);
        }
      if (thread < kSumRows) {
        const bool inside = first + thread < rows;
        cp_async<4>(shared_address(mask_of(step) + thread), inside ? mask + thread * words + step : p.workspace, inside);
      }
    }
    cp_async_commit();
  };
  const int row = warp / 4 * 64 + lane / 4, left = warp % 4 * 32;
  float sums[4][4][4] = {};
#pragma unroll
  for (int step = 0; step < kSumStages - 1; ++step) fetch(step);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kSumStages - 2>();
    __syncthreads();  // the step is there, and the one before has been used
    fetch(step + kSumStages - 1);
    uint32_t bits[4][2];
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) bits[m][half] = mask_of(step)[row + m * 16 + half * 8] << (3 - lane % 4);
#pragma unroll
    for (int k = 0; k < 2; ++k)  // 16 key blocks
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        uint32_t b[2][4];
#pragma unroll
        for (int i = 0; i < 2; ++i)
          ldmatrix_x4_trans(b[i], shared_address(tile_of(step) + part * kSumTile + (k * 16 + lane % 16) * kRowPitch + left + i * 16 + lane / 16 * 8));
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          uint32_t a[4];
#pragma unroll
          for (int e = 0; e < 4; ++e) {  // bits 3 + 4 (2 k + e / 2) and 16 further on, to where 2.0 has its one
            const int at = 3 + 4 * (2 * k + e / 2);
            a[e] = (at < 14 ? bits[m][e % 2] << (14 - at) : bits[m][e % 2] >> (at - 14)) & 0x40004000u;
          }
#pragma unroll
          for (int n = 0; n < 4; ++n) mma_m16n8k16<bfloat16_t>(sums[m][n], a, b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
        }
      }
  }
  cp_async_wait<0>();
  bfloat16_t* const to = in_workspace<bfloat16_t>(p, p.plan.sums_at) + (head * rows + first) * kParts * square + column;
  float* const norms = in_workspace<float>(p, p.plan.norms_at) + (head * rows + first) * 2 * p.dim + column - square;
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + m * 16 + half * 8;
      if (first + r >= rows) continue;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int c = left + n * 8 + lane % 4 * 2;
        const float x = sums[m][n][2 * half] * 0.5f, y = sums[m][n][2 * half + 1] * 0.5f;
        if (column + c < square) {
          const Split parts = split(x, y);
          *reinterpret_cast<uint32_t*>(to + r * kParts * square + c) = parts.high;
          if constexpr (kParts == 2) *reinterpret_cast<uint32_t*>(to + (r * kParts + 1) * square + c) = parts.low;
        } else if (column + c < size) {
          norms[r * 2 * p.dim + c] = x;
          norms[r * 2 * p.dim + c + 1] = y;
        }
      }
    }
}

}  // namespace culebra::CUL_DEVICE_NS::sla

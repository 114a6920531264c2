// The linear part of sparse-linear attention on tensor cores, for half operands: what a token makes of its block's sums.
#pragma once
#include "ops/attention/tile/key_tiles.cuh"
#include "ops/sparse_attention/linear_states.cuh"

namespace culebra::CUL_DEVICE_NS::sla {

inline constexpr int kPartThreads = 128, kPartTokens = 64, kPartTile = kMostDim * kRowPitch;

// part += a b^T over dim channels, b [dim, dim] in shared memory.
template <class T>
CUL_DEVICE_FN void add_product(float (&part)[kMostDim / 8][4], const uint32_t (&a)[kMostDim / 16][4], const T* b, int dim, int lane) {
#pragma unroll
  for (int k = 0; k < kMostDim / 16; ++k) {
    if (k * 16 >= dim) break;
#pragma unroll
    for (int n = 0; n < kMostDim / 16; ++n) {
      if (n * 16 >= dim) break;
      uint32_t x[4];
      ldmatrix_x4(x, shared_address(b + (n * 16 + lane / 16 * 8 + lane % 8) * kRowPitch + k * 16 + lane / 8 % 2 * 8));
      mma_m16n8k16<T>(part[2 * n], a[k], x[0], x[1]);
      mma_m16n8k16<T>(part[2 * n + 1], a[k], x[2], x[3]);
    }
  }
}

// Computes: o += proj_w O_l + proj_b, O_l = phi(q) S / (phi(q) . z + eps) with the query block's sums S, z
// Shapes:   q [B,H,L,D], sums, proj_w [D,D], proj_b [D] -> o [B,H,L,D], which holds the softmax part; half, D a multiple of 16 up to 128
// Layouts:  rows anywhere, channels contiguous
// Tiles:    64 tokens of a query block a block, 16 a warp, all channels; phi(q) and O_l stay in registers
// Shared:   two tiles [D,D]: S and proj_w, or the two parts of S and then proj_w; rows padded by 16 bytes
// Order:    channels ascending as mma has them; of two-part products high high, high low, low high
// Numerics: phi(q) as rounded to kParts bf16 enters O_l and its norm; a softmax is divided by its sum there. O_l is rounded to T, the
//           softmax part has been; sums f32
// Needs:    sm_80 (mma.m16n8k16). Limit: 4 D^2 operations a token; S once for 64 tokens, from L2; q and twice o
// Source:   SLA, arXiv:2509.24006
template <class T, int kParts>
__global__ void __launch_bounds__(kPartThreads, 2) linear_part_kernel(Params p, Group group, int64_t tiles) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  auto* const tile = reinterpret_cast<bfloat16_t*>(shared);
  const int dim = static_cast<int>(p.dim), thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const auto [row, part_of] = block_divide(blockIdx.x, tiles);
  const auto [head, i] = block_divide(row, p.blocks);
  const auto place = block_divide(group.first + head, p.heads);
  const int64_t b = place.quotient, h = place.rest, first = i * p.block + part_of * kPartTokens;
  const int tokens = static_cast<int>(min(int64_t{kPartTokens}, p.block_end(i) - first));
  if (tokens <= 0) return;
  const int64_t at = p.sum_row(head, i), square = p.dim * p.dim;
  const auto fetch_sums = [&](int part) {
    const bfloat16_t* const sums = in_workspace<const bfloat16_t>(p, p.plan.sums_at) + (at * kParts + part) * square;
    fetch_rows<kMostDim, kPartThreads, kMostDim>(tile + part * kPartTile, dim, true, p.workspace, thread,
                                                 [&](int r) { return r < dim ? sums + r * dim : nullptr; });
  };
  T* const weights = reinterpret_cast<T*>(tile + (2 - kParts) * kPartTile);
  const auto fetch_weights = [&] {
    fetch_rows<kMostDim, kPartThreads, kMostDim>(weights, dim, p.proj_aligned, p.workspace, thread, [&](int r) {
      return r < dim ? static_cast<const T*>(p.proj_w) + r * p.proj_stride : nullptr;
    });
  };
  fetch_sums(0);
  if constexpr (kParts == 2) fetch_sums(1);
  cp_async_commit();
  if (kParts == 1 && p.proj_w) fetch_weights();
  cp_async_commit();

  // phi(q) of rows g and g + 8 of the warp as the product takes it, and phi(q) . z.
  const int own = warp * 16 + lane / 4;
  uint32_t a[kParts][kMostDim / 16][4] = {};
  float highest[2] = {-__builtin_huge_valf(), -__builtin_huge_valf()}, sum[2] = {}, norm[2] = {};
#pragma unroll
  for (int k = 0; k < kMostDim / 16; ++k) {
    if (k * 16 >= dim) break;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int t = own + e % 2 * 8;
      const uint32_t x = t < tokens ? load_pair(p.q.at<const T>(b, h, first + t), k * 16 + lane % 4 * 2 + e / 2 * 8, p.aligned) : 0;
      a[0][k][e] = x;
      highest[e % 2] = fmaxf(highest[e % 2], fmaxf(low_float<T>(x), high_float<T>(x)));
    }
  }
  if (p.phi == CUL_SLA_SOFTMAX)
    for (float& x : highest) x = warp_max<4>(x);
  const float* const z = in_workspace<const float>(p, p.plan.norms_at) + at * 2 * p.dim;
#pragma unroll
  for (int k = 0; k < kMostDim / 16; ++k) {
    if (k * 16 >= dim) break;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float x[2] = {low_float<T>(a[0][k][e]), high_float<T>(a[0][k][e])};
      const float most = highest[e % 2];
#pragma unroll
      for (float& value : x) {
        value = p.phi == CUL_SLA_SOFTMAX ? expf(value - most) : feature(p.phi, value);
        sum[e % 2] += value;
      }
      const Split parts = split(x[0], x[1]);
      a[0][k][e] = parts.high;
      if constexpr (kParts == 2) a[kParts - 1][k][e] = parts.low;
      const int c = k * 16 + lane % 4 * 2 + e / 2 * 8;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        float value = n ? high_float<bfloat16_t>(parts.high) : low_float<bfloat16_t>(parts.high);
        if constexpr (kParts == 2) value += n ? high_float<bfloat16_t>(parts.low) : low_float<bfloat16_t>(parts.low);
        norm[e % 2] = fmaf(value, z[c + n] + z[dim + c + n], norm[e % 2]);
      }
    }
  }
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float eps = p.phi == CUL_SLA_SOFTMAX ? p.eps * warp_sum<4>(sum[half]) : p.eps;
    inverse[half] = fast_reciprocal(warp_sum<4>(norm[half]) + eps);
  }
  const bool there = warp * 16 < tokens;
  float part[kMostDim / 8][4] = {};
  cp_async_wait<1>();
  __syncthreads();
  if (there) {
    add_product(part, a[0], tile, dim, lane);
    if constexpr (kParts == 2) {
      add_product(part, a[0], tile + kPartTile, dim, lane);
      add_product(part, a[kParts - 1], tile, dim, lane);
    }
#pragma unroll
    for (int n = 0; n < kMostDim / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) part[n][e] *= inverse[e / 2];
  }
  if (p.proj_w) {
    if constexpr (kParts == 2) {
      __syncthreads();  // the sums have been used
      fetch_weights();
      cp_async_commit();
    }
    uint32_t linear[kMostDim / 16][4];
#pragma unroll
    for (int k = 0; k < kMostDim / 16; ++k)
#pragma unroll
      for (int e = 0; e < 4; ++e) linear[k][e] = pack2<T>(part[2 * k + e / 2][e % 2 * 2], part[2 * k + e / 2][e % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < kMostDim / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) part[n][e] = 0;
    cp_async_wait<0>();
    __syncthreads();
    if (there) add_product(part, linear, weights, dim, lane);
  }
  const T* const bias = static_cast<const T*>(p.proj_b);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int t = own + half * 8;
    if (t >= tokens) continue;
    T* const o = p.o.at<T>(b, h, first + t);
#pragma unroll
    for (int n = 0; n < kMostDim / 8; ++n) {
      const int c = n * 8 + lane % 4 * 2;
      if (c >= dim) break;
      const uint32_t before = load_pair<T>(o, c, p.aligned);
      const float x = low_float<T>(before) + part[n][2 * half] + (bias ? to_float(bias[c]) : 0.0f);
      const float y = high_float<T>(before) + part[n][2 * half + 1] + (bias ? to_float(bias[c + 1]) : 0.0f);
      const uint32_t pair = pack2<T>(x, y);
      if (p.aligned) {
        *reinterpret_cast<uint32_t*>(o + c) = pair;
      } else {
        o[c].bits = static_cast<uint16_t>(pair);
        o[c + 1].bits = static_cast<uint16_t>(pair >> 16);
      }
    }
  }
}

}  // namespace culebra::CUL_DEVICE_NS::sla

#include <algorithm>

#include "device/async_copy.h"
#include "device/barrier.h"
#include "device/bits.h"
#include "device/launch.h"
#include "device/mma.h"
#include "device/warp.h"
#include "ops/kv_cache/cca_qkv.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kTokens = 16 * kWarps;     // of a block of the tensor cores' kernel
constexpr int kOut = 64, kIn = 64;       // its tile of the weights: channels, and (input channel, tap) pairs
constexpr int kWeightPitch = kIn + 8;    // halves: ldmatrix meets no bank twice
constexpr int kPlainTokens = 4;          // of a block of the other kernel

// What follows the second convolution, by one warp, for one token of one head: row holds y2 without its bias.
template <class T>
CUL_DEVICE_FN void finish_row(const CcaParams& p, int64_t b, int64_t t, int64_t head, float* row, int lane) {
  const bool query = head < p.query_heads;
  const int64_t group = p.group(), kv = query ? block_divide(head, group).quotient : head - p.query_heads, dim = p.dim;
  const T* const bias = static_cast<const T*>(p.conv2_b);
  const T* const own = query ? p.x_q.at<const T>(b, t, head) : nullptr;
  const T* const key = p.x_k.at<const T>(b, t, kv);
  const float share = query ? 0.5f : 0.5f * fast_reciprocal(static_cast<float>(group));
  float squares = 0;
  for (int64_t c = lane; c < dim; c += 32) {
    float x = row[c] + (bias ? to_float(bias[head * dim + c]) : 0.0f);
    float mean = 0;
    if (query)
      mean = to_float(own[c]);
    else
      for (int64_t g = 0; g < group; ++g) mean += to_float(p.x_q.at<const T>(b, t, kv * group + g)[c]);
    x = fmaf(mean, share, fmaf(to_float(key[c]), 0.5f, x));
    row[c] = x;
    squares = fmaf(x, x, squares);
  }
  squares = warp_sum(squares);
  __syncwarp();
  // sqrt(D) / max(norm, 1e-6) without the divisions and roots that are calls: a call spills what is alive around it.
  const float width = static_cast<float>(dim);
  const float factor = width * rsqrtf(width) * rsqrtf(squares < 1e-12f ? 1e-12f : squares) * (query ? 1.0f : p.temp[kv]);
  T* const to = query ? p.q.at<T>(b, t, head) : p.k.at<T>(b, t, kv);
  const int64_t pairs = p.rotary_pairs;
  const float* const cos = pairs ? p.cos.at<const float>(b, t, 0) : nullptr;
  const float* const sin = pairs ? p.sin.at<const float>(b, t, 0) : nullptr;
  for (int64_t c = lane; c < dim; c += 32) {
    float x = row[c] * factor;
    if (c < pairs)
      x = x * cos[c] - row[c + pairs] * factor * sin[c];
    else if (c < 2 * pairs)
      x = x * cos[c - pairs] + row[c - pairs] * factor * sin[c - pairs];
    to[c] = from_float<T>(x);
  }
  if (query) return;
  T* const v = p.v.at<T>(b, t, kv);
  for (int64_t c = lane; c < dim; c += 32) v[c] = p.value<T>(b, t, kv * dim + c);
}

// Computes: q, k and v: both convolutions of a head's channels, means, norm, temperature, rotation; a key head's values
// Shapes:   x_q [B,T,Hq D], x_k [B,T,Hkv D], conv2_w [C,D,2]; half, D a multiple of 16 up to 256
// Layouts:  rows anywhere; 16-byte copies of the weights where they are aligned
// Tiles:    64 tokens of a head a block, 16 a warp, against 64 channels at a time
// Shared:   the first convolution in T, both taps of an input channel side by side as the weights have them; 64 x 64 weights; then
//           each warp's results in f32 in the place of its tokens
// Order:    input channels ascending as mma has them; a lane every 32nd channel of a head's sum of squares
// Numerics: the first convolution rounded to T, products and all else f32
// Needs:    sm_80 (mma.m16n8k16, cp.async). Limit: the operands' bytes; 4 D operations an element of q and k
// Source:   Compressed Convolutional Attention, arXiv:2510.04476
template <class T>
__global__ void __launch_bounds__(kThreads) cca_half_kernel(CcaParams p, bool aligned) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  CUL_SHARED(T, weights, [kOut * kWeightPitch]);
  const int dim = static_cast<int>(p.dim), pitch = 2 * dim + 8;
  T* const z = reinterpret_cast<T*>(shared);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t tiles = (p.tokens + kTokens - 1) / kTokens;
  const auto [item, tile] = block_divide(blockIdx.x, tiles);
  const auto [b, head] = block_divide(item, p.heads());
  const int64_t first = tile * kTokens;
  // y1 of token t is the tap 1 of row t and the tap 0 of row t + 1.
  for (int i = thread; i < (kTokens + 1) * dim; i += kThreads) {
    const int row = i / dim - 1, c = i % dim;
    const int64_t t = first + row;
    const T y = t < p.tokens ? from_float<T>(p.y1<T>(b, t, head, c)) : T{};
    if (row >= 0) z[row * pitch + 2 * c + 1] = y;
    if (row + 1 < kTokens) z[(row + 1) * pitch + 2 * c] = y;
  }
  // Results of 64 channels at a time; they wait in registers until the warp's tokens have met all weights.
  constexpr int kMostParts = 256 / kOut;
  float sums[kMostParts][kOut / 8][4] = {};
#pragma unroll
  for (int part = 0; part < kMostParts; ++part) {
    if (part * kOut >= dim) break;
#pragma unroll 1
    for (int in = 0; in < 2 * dim; in += kIn) {
      __syncthreads();
      const T* const from = p.conv2_w.at<const T>(0, head * dim + part * kOut, 0);
      if (aligned) {
        for (int i = thread; i < kOut * kIn / 8; i += kThreads) {
          const int row = i / (kIn / 8), c = i % (kIn / 8) * 8;
          const bool inside = part * kOut + row < dim && in + c < 2 * dim;
          cp_async_l2(shared_address(weights + row * kWeightPitch + c), inside ? from + row * p.conv2_w.row + in + c : from, inside);
        }
        cp_async_commit();
        cp_async_wait<0>();
      } else {
        for (int i = thread; i < kOut * kIn; i += kThreads) {
          const int row = i / kIn, c = i % kIn;
          const bool inside = part * kOut + row < dim && in + c < 2 * dim;
          weights[row * kWeightPitch + c] =
              inside ? from[row * p.conv2_w.row + (in + c) / 2 * p.conv2_w.head + (in + c) % 2] : T{};
        }
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kIn; k += 16) {
        if (in + k >= 2 * dim) break;
        uint32_t a[4];
        ldmatrix_x4(a, shared_address(z + (warp * 16 + lane % 16) * pitch + in + k + lane / 16 * 8));
#pragma unroll
        for (int n = 0; n < kOut / 16; ++n) {
          uint32_t w[4];
          ldmatrix_x4(w, shared_address(weights + (n * 16 + lane / 16 * 8 + lane % 8) * kWeightPitch + k + lane / 8 % 2 * 8));
          mma_m16n8k16<T>(sums[part][2 * n], a, w[0], w[1]);
          mma_m16n8k16<T>(sums[part][2 * n + 1], a, w[2], w[3]);
        }
      }
    }
  }
  __syncwarp();
  // A row of z has room for dim + 4 floats.
  float* const rows = reinterpret_cast<float*>(z + warp * 16 * pitch);
#pragma unroll
  for (int part = 0; part < kMostParts; ++part)
#pragma unroll
    for (int n = 0; n < kOut / 8; ++n)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int row = lane / 4 + j / 2 * 8, c = part * kOut + n * 8 + lane % 4 * 2 + j % 2;
        if (c < dim) rows[row * (dim + 4) + c] = sums[part][n][j];
      }
  __syncwarp();
  for (int row = 0; row < 16; ++row) {
    const int64_t t = first + warp * 16 + row;
    if (t >= p.tokens) break;
    finish_row<T>(p, b, t, head, rows + row * (dim + 4), lane);
  }
}

// Computes: as cca_half_kernel, for f32 and any D
// Shapes:   as there
// Layouts:  rows anywhere
// Tiles:    4 tokens of a head a block; a thread one channel of all of them at a time
// Shared:   the first convolution of the tokens and the one before, and the results, in f32
// Order:    input channels ascending, tap 0 first
// Numerics: f32 FMA
// Needs:    sm_80. Limit: 4 D operations an element on the FMA pipes
// Source:   as there
template <class T>
__global__ void __launch_bounds__(kThreads, 4) cca_plain_kernel(CcaParams p) {
  CUL_DYNAMIC_SHARED(float, y1, 16);  // [tokens + 1, D], then [tokens, D]
  const int dim = static_cast<int>(p.dim), thread = static_cast<int>(threadIdx.x);
  float* const out = y1 + (kPlainTokens + 1) * dim;
  const int64_t tiles = (p.tokens + kPlainTokens - 1) / kPlainTokens;
  const auto [item, tile] = block_divide(blockIdx.x, tiles);
  const auto [b, head] = block_divide(item, p.heads());
  const int64_t first = tile * kPlainTokens;
  for (int i = thread; i < (kPlainTokens + 1) * dim; i += kThreads) {
    const int64_t t = first + i / dim - 1;
    y1[i] = t < p.tokens ? p.y1<T>(b, t, head, i % dim) : 0.0f;
  }
  __syncthreads();
  for (int c = thread; c < dim; c += kThreads) {
    float sums[kPlainTokens] = {};
#pragma unroll 1
    for (int i = 0; i < dim; ++i) {
      const T* const w = p.conv2_w.at<const T>(0, head * dim + c, i);
      const float before = to_float(w[0]), now = to_float(w[1]);
      float y = y1[i];
#pragma unroll
      for (int t = 0; t < kPlainTokens; ++t) {
        const float next = y1[(t + 1) * dim + i];
        sums[t] = fmaf(before, y, sums[t]);
        sums[t] = fmaf(now, next, sums[t]);
        y = next;
      }
    }
#pragma unroll
    for (int t = 0; t < kPlainTokens; ++t) out[t * dim + c] = sums[t];
  }
  __syncthreads();
  for (int row = thread / 32; row < kPlainTokens && first + row < p.tokens; row += kWarps)
    finish_row<T>(p, b, first + row, head, out + row * dim, thread % 32);
}

// Computes: the states after the last token
// Shapes:   conv_state [B,C,2], x_q, x_k -> new_conv_state; v_state [B,Hkv D/2], x_v2 -> new_v_state
// Layouts:  rows anywhere
// Tiles:    a channel a thread; the old state is read before the new one is written: they may be one memory
// Shared:   none
// Order:    none
// Numerics: copies, bit for bit
// Needs:    sm_80
// Source:   the definition
template <class T>
__global__ void __launch_bounds__(kThreads) cca_state_kernel(CcaParams p) {
  const int64_t channels = p.heads() * p.dim, all = channels + p.value_half();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x, b = i / all, c = i % all;
  if (b >= p.batch) return;
  if (c >= channels) {
    const int64_t at = c - channels;
    p.new_v_state.at<T>(b, 0, 0)[at] = p.tokens > 0      ? p.x_v2.at<const T>(b, p.tokens - 1, 0)[at]
                                       : p.v_state.data ? p.v_state.at<const T>(b, 0, 0)[at]
                                                        : T{};
    return;
  }
  const auto [head, channel] = block_divide(c, p.dim);
  const auto x = [&](int64_t t) {
    if (t < 0) return p.conv_state.data ? p.conv_state.at<const T>(b, c, 0)[t + 2] : T{};
    return head < p.query_heads ? p.x_q.at<const T>(b, t, head)[channel] : p.x_k.at<const T>(b, t, head - p.query_heads)[channel];
  };
  const T older = x(p.tokens - 2), newer = x(p.tokens - 1);
  T* const to = p.new_conv_state.at<T>(b, c, 0);
  to[0] = older;
  to[1] = newer;
}

template <class T>
void run(const CcaParams& p, NativeStream stream) {
  const int64_t heads = p.batch * p.heads();
  bool plain = true;
  if constexpr (sizeof(T) == 2) {
    plain = p.dim % 16 || p.dim > 256;
    if (!plain && p.tokens > 0) {
      const auto blocks = static_cast<unsigned>((p.tokens + kTokens - 1) / kTokens * heads);
      const bool aligned = p.conv2_w.head == 2 && p.conv2_w.row % 8 == 0;
      launch(cca_half_kernel<T>, dim3(blocks), dim3(kThreads), static_cast<size_t>(kTokens * (2 * p.dim + 8)) * 2, stream, p, aligned);
    }
  }
  if (plain && p.tokens > 0) {
    const auto blocks = static_cast<unsigned>((p.tokens + kPlainTokens - 1) / kPlainTokens * heads);
    launch(cca_plain_kernel<T>, dim3(blocks), dim3(kThreads), static_cast<size_t>((2 * kPlainTokens + 1) * p.dim) * 4, stream, p);
  }
  if (!p.new_conv_state.data) return;
  const int64_t channels = p.batch * (p.heads() * p.dim + p.value_half());
  launch(cca_state_kernel<T>, dim3(static_cast<unsigned>((channels + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream, p);
}

}  // namespace

void cca_qkv(const CcaParams& p, NativeStream stream) {
  if (p.batch == 0) return;
  switch (p.dtype) {
    case DType::f16: return run<half_t>(p, stream);
    case DType::bf16: return run<bfloat16_t>(p, stream);
    default: return run<float>(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

#include <algorithm>

#include "device/barrier.h"
#include "device/launch.h"
#include "device/mma.h"
#include "device/vector.h"
#include "ops/glue/tiles.cuh"
#include "ops/linear_attention/conv_fft.h"
#include "ops/linear_attention/conv_fft_taps.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = ConvFftParams;

constexpr int kBlock = 16;      // tokens of a block of the Toeplitz matrix
constexpr int kChannels = 16;   // of a thread block: a sector of halves
constexpr int kWarps = 8;
constexpr int kColumns = 8;     // blocks of tokens in an mma
constexpr int kTiles = 8;       // mmas that a warp keeps sums of
constexpr int kTokens = kBlock * kColumns * kTiles;

// What a call of so many taps has in shared memory: each channel's tokens behind one another, and each warp's filter.
struct BlocksLayout {
  int blocks;  // of the Toeplitz matrix that are not zero, in a row of them
  CUL_NUMERIC explicit BlocksLayout(int64_t taps) : blocks(static_cast<int>((taps + 14) / kBlock) + 1) {}
  CUL_NUMERIC int past() const { return kBlock * (blocks - 1); }
  CUL_NUMERIC int pitch() const { return past() + kTokens + 4; }
  CUL_NUMERIC int words() const { return kBlock * (blocks + 1); }
  CUL_NUMERIC int filters_at() const { return kChannels * pitch() * 2; }
  CUL_NUMERIC int bytes() const { return filters_at() + kWarps * 2 * words() * 4; }
};

// The power of two that brings the largest tap to 2^10 .. 2^11: of f16 both parts are then far from either end of its range.
struct FilterScale {
  float up, down;
  CUL_DEVICE_FN explicit FilterScale(float largest) {
    const int exponent = static_cast<int>(__float_as_uint(largest) >> 23), e = exponent < 11 ? 11 : exponent > 254 ? 254 : exponent;
    up = __uint_as_float(static_cast<uint32_t>(264 - e > 254 ? 254 : 264 - e) << 23);
    down = __uint_as_float(static_cast<uint32_t>(e - 10) << 23);
  }
};

// One channel's filter as a warp's words: word n of a part holds taps n - 15 and n - 16, 0 outside of the filter. Returns what sums are to be
// multiplied by.
template <class T>
CUL_DEVICE_FN float stage_filter(const Params& p, int64_t channel, const BlocksLayout& layout, uint32_t* high, uint32_t* low) {
  const int lane = static_cast<int>(threadIdx.x) % 32, taps = static_cast<int>(p.taps);
  float largest = 0.0f;
  for (int s = lane; s < taps; s += 32) largest = max(largest, fabsf(tap_of<T>(p, channel, s)));
  const FilterScale scale(warp_max(largest));
  for (int n = lane; n < layout.words(); n += 32) {
    const int s = n - 15;
    const float tap = s >= 0 && s < taps ? scale.up * tap_of<T>(p, channel, s) : 0.0f;
    const float older = s - 1 >= 0 && s - 1 < taps ? scale.up * tap_of<T>(p, channel, s - 1) : 0.0f;
    high[n] = pack2<T>(tap, older);
    low[n] = pack2<T>(tap - low_float<T>(high[n]), older - high_float<T>(high[n]));
  }
  __syncwarp();
  return scale.down;
}

// Eight channels of a token from `channel` on, 0 outside of x.
template <class T>
CUL_DEVICE_FN Vector<T, 8> load_channels(const Params& p, int64_t b, int64_t t, int64_t channel, bool aligned) {
  Vector<T, 8> v;
  if (t >= 0 && t < p.tokens) {
    const T* x = static_cast<const T*>(p.x.data) + b * p.x.batch + t * p.x.token + channel;
    if (aligned && channel + 8 <= p.channels) return load_vector<8>(x);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = channel + i < p.channels ? x[i] : from_float<T>(0.0f);
    return v;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = from_float<T>(0.0f);
  return v;
}

// Computes: y[t] = sum_s filter[s] x[t-s] + skip x[t]: a Toeplitz matrix of blocks H_j [16,16], H_j[r,k] = filter[16 j + r - k], times x in columns of 16
// tokens: Y[:,i] = sum_j H_j X[:,i-j]
// Shapes:   x, y [B,T,C] f16 or bf16; filter [C,L], L <= 512
// Layouts:  inner stride 1; accesses of eight channels where tokens are aligned
// Tiles:    8 warps; a block has 1024 tokens of 16 channels, a warp two of the channels, one after the other, 64 columns in registers
// Shared:   tokens before and in the tile, channel by channel, overwritten by y (L = 256: 41 KB, 512: 49 KB); each warp's filter (18 KB, 35 KB)
// Order:    the nearest block first, the filter's high part before its low one; neither tile nor company changes it
// Numerics: x as stored, the filter in two parts of x's type: 21 bits (f16), 16 (bf16) of its largest tap; f32 sums, rounded once
// Needs:    sm_80. Limit: x and y once, 4 (L + 15) operations of tensor cores a token
// Source:   the definition; blocks of a Toeplitz matrix are Toeplitz
template <class T>
__global__ void __launch_bounds__(32 * kWarps, 2) convolve_blocks_kernel(Params p, int64_t groups, int64_t tiles, bool aligned) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 16);
  const BlocksLayout layout(p.taps);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  T* const inputs = reinterpret_cast<T*>(shared);
  uint32_t* const high = reinterpret_cast<uint32_t*>(shared + layout.filters_at()) + warp * 2 * layout.words();
  uint32_t* const low = high + layout.words();
  for (int64_t item = blockIdx.x; item < p.batch * tiles * groups; item += gridDim.x) {
    const int64_t run = divide(item, groups), b = divide(run, tiles), first_channel = (item - run * groups) * kChannels;
    const int64_t first = (run - b * tiles) * kTokens;
    const int64_t left = p.tokens - first;
    const int tokens = left < kTokens ? static_cast<int>(left) : kTokens, columns = (tokens + kBlock - 1) / kBlock;
    // Two tokens of eight channels a thread, turned so that a channel's tokens are neighbours.
    const int rounded = (columns + kColumns - 1) / kColumns * kColumns, pairs = (layout.past() + kBlock * rounded) / 2;
    for (int i = thread; i < pairs * (kChannels / 8); i += 32 * kWarps) {
      const int octet = i / pairs, at = 2 * (i - octet * pairs);
      const int64_t token = first - layout.past() + at;
      const Vector<T, 8> one = load_channels<T>(p, b, token, first_channel + 8 * octet, aligned);
      const Vector<T, 8> two = load_channels<T>(p, b, token + 1, first_channel + 8 * octet, aligned);
#pragma unroll
      for (int c = 0; c < 8; ++c)
        *reinterpret_cast<uint32_t*>(inputs + (8 * octet + c) * layout.pitch() + at) = pack_bits(one[c].bits, two[c].bits);
    }
    __syncthreads();
    for (int c = warp; c < kChannels && first_channel + c < p.channels; c += kWarps) {
      const float down = stage_filter<T>(p, first_channel + c, layout, high, low);
      T* const row = inputs + c * layout.pitch() + layout.past();
      float sums[kTiles][4] = {};
      for (int j = 0; j < layout.blocks; ++j) {
        // k of an mma may be in any order: lane t has tokens 4t .. 4t + 3, eight bytes of x.
        const int word = kBlock * j + g - 4 * t + 15;
        const uint32_t a[4] = {high[word], high[word + 8], high[word - 2], high[word + 6]};
        const uint32_t rest[4] = {low[word], low[word + 8], low[word - 2], low[word + 6]};
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          if (tile * kColumns >= columns) break;
          const uint2 x = *reinterpret_cast<const uint2*>(row + kBlock * (tile * kColumns + g - j) + 4 * t);
          mma_m16n8k16<T>(sums[tile], a, x.x, x.y);
          mma_m16n8k16<T>(sums[tile], rest, x.x, x.y);
        }
      }
      __syncwarp();
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if (tile * kColumns >= columns) break;
#pragma unroll
        for (int i = 0; i < 4; ++i)
          row[kBlock * (tile * kColumns + 2 * t + i % 2) + g + 8 * (i / 2)] = from_float<T>(down * sums[tile][i]);
      }
    }
    __syncthreads();
    for (int i = thread; i < tokens * (kChannels / 8); i += 32 * kWarps) {
      const int octet = i / tokens, at = i - octet * tokens;
      const int64_t channel = first_channel + 8 * octet;
      T* const y = static_cast<T*>(p.y.data) + b * p.y.batch + (first + at) * p.y.token + channel;
      const T* const from = inputs + 8 * octet * layout.pitch() + layout.past() + at;
      Vector<T, 8> v;
#pragma unroll
      for (int c = 0; c < 8; ++c)
        if (channel + c < p.channels) v[c] = from[c * layout.pitch()];
      if (aligned && channel + 8 <= p.channels) {
        store_vector(y, v);
      } else {
#pragma unroll
        for (int c = 0; c < 8; ++c)
          if (channel + c < p.channels) y[c] = v[c];
      }
    }
    __syncthreads();
  }
}

}  // namespace

void conv_fft_blocks(const Params& p, NativeStream stream) {
  const auto run = [&](auto tag) {
    using T = decltype(tag);
    const int64_t groups = (p.channels + kChannels - 1) / kChannels, tiles = (p.tokens + kTokens - 1) / kTokens;
    bool aligned = true;
    for (const int64_t stride : {p.x.batch, p.x.token, p.y.batch, p.y.token}) aligned &= stride % 8 == 0;
    const int64_t blocks = std::min<int64_t>(p.batch * groups * tiles, 1 << 30);
    launch(convolve_blocks_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(32 * kWarps),
           static_cast<size_t>(BlocksLayout(p.taps).bytes()), stream, p, groups, tiles, aligned);
  };
  if (p.dtype == DType::f16)
    run(half_t{});
  else
    run(bfloat16_t{});
}

}  // namespace culebra::CUL_DEVICE_NS

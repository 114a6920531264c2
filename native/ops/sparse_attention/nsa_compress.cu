#include "ops/sparse_attention/nsa_compress.cuh"

#include <algorithm>

#include "device/async_copy.h"
#include "device/barrier.h"
#include "device/mma.h"
#include "device/warp.h"
#include "ops/glue/tiles.cuh"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

using glue::load_pack;
using glue::Pack;
using glue::store_pack;

constexpr int kStartThreads = 256;

// Computes: cu_out[b + 1] = cu_out[b] + rows of sequence b
// Shapes:   cu_seqlens, cu_out i32 [B+1]; any B
// Layouts:  compact
// Tiles:    one block; 256 sequences at a time
// Shared:   a sum a warp
// Order:    exact integers
// Numerics: 32 bits, as the contract's
// Needs:    sm_80. Limit: latency
// Source:   the definition
__global__ void __launch_bounds__(kStartThreads) starts_kernel(const int32_t* cu_seqlens, int32_t* cu_out, int64_t sequences, int64_t l,
                                                               int64_t d) {
  CUL_SHARED(int, of_warp, [kStartThreads / 32]);
  const int thread = static_cast<int>(threadIdx.x);
  int before = 0;
  if (thread == 0) cu_out[0] = 0;
  for (int64_t first = 0; first < sequences; first += kStartThreads) {
    const int64_t b = first + thread;
    const int rows = b < sequences ? static_cast<int>(compressed_rows(cu_seqlens[b + 1] - cu_seqlens[b], l, d)) : 0;
    int sum = warp_inclusive_sum(rows);
    if (thread % 32 == 31) of_warp[thread / 32] = sum;
    __syncthreads();
    int total = 0;
    for (int w = 0; w < kStartThreads / 32; ++w) {
      if (w < thread / 32) sum += of_warp[w];
      total += of_warp[w];
    }
    if (b < sequences) cu_out[b + 1] = before + sum;
    before += total;
    __syncthreads();
  }
}

// The first token of output row `row`; -1 where there is none.
CUL_DEVICE_FN int64_t first_token(const NsaCompressParams& p, int64_t row) {
  if (row >= p.out_rows || row >= p.cu_out[p.sequences]) return -1;
  int64_t low = 0, high = p.sequences;  // cu_out[low] <= row < cu_out[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (p.cu_out[middle] <= row ? low : high) = middle;
  }
  return p.cu_seqlens[low] + (row - p.cu_out[low]) * p.d;
}

// Computes: y[j] = mean over i < l of x[token(j) + i] + pe[i]
// Shapes:   x [T,H,D] -> y [Tc,H,D]; any D
// Layouts:  rows with inner stride 1; 16-byte accesses where every row is aligned
// Tiles:    a pack of channels of one row and head a thread
// Shared:   none
// Order:    i ascending
// Numerics: f32 sums, one rounding
// Needs:    sm_80. Limit: the bytes of x, l/d times from L2
// Source:   the definition
template <class T>
__global__ void __launch_bounds__(256) mean_kernel(NsaCompressParams p, int64_t packs) {
  constexpr int kSize = Pack<T>::kSize;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = divide(item, packs * p.heads), rest = item - row * packs * p.heads;
  const int64_t head = divide(rest, packs), c = (rest - head * packs) * kSize;
  const int64_t token = first_token(p, row);
  if (token < 0) return;
  const int count = static_cast<int>(min(p.dim - c, int64_t{kSize}));
  Pack<T> sum;
#pragma unroll
  for (int i = 0; i < kSize; ++i) sum.v[i] = 0;
  for (int64_t i = 0; i < p.l; ++i) {
    const Pack<T> x = load_pack(p.x.at<const T>(token + i, head) + c, count, p.aligned);
#pragma unroll
    for (int j = 0; j < kSize; ++j) sum.v[j] += x.v[j];
    if (p.pe.data) {
      const Pack<T> pe = load_pack(p.pe.at<const T>(i, head) + c, count, p.aligned);
#pragma unroll
      for (int j = 0; j < kSize; ++j) sum.v[j] += pe.v[j];
    }
  }
#pragma unroll
  for (int j = 0; j < kSize; ++j) sum.v[j] /= static_cast<float>(p.l);
  store_pack(p.y.at<T>(row, head) + c, sum, count, p.aligned);
}

constexpr int kF32Rows = 8, kF32Columns = 64;

// Computes: y[j] = sum over i < l of (x[token(j) + i] + pe[i]) w[i] for f32
// Shapes:   x [T,H,D], w [H,l,D,D] -> y [Tc,H,D]; D up to 256
// Layouts:  rows with inner stride 1
// Tiles:    8 rows x 64 columns of one head; a thread has one column of all rows
// Shared:   the 8 rows of x for one i
// Order:    i, then channels, ascending, one FMA chain
// Numerics: f32 FMA, no TF32
// Needs:    sm_80. Limit: 2 l D^2 operations a row and head
// Source:   the definition
__global__ void __launch_bounds__(kF32Columns) linear_f32_kernel(NsaCompressParams p, int64_t column_tiles) {
  CUL_SHARED(float, in, [kF32Rows][kMaxCompressDim]);
  CUL_SHARED(int64_t, tokens, [kF32Rows]);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t block = blockIdx.x, column = block % column_tiles * kF32Columns + thread, head = block / column_tiles % p.heads,
                row0 = block / column_tiles / p.heads * kF32Rows;
  if (thread < kF32Rows) tokens[thread] = first_token(p, row0 + thread);
  __syncthreads();
  float sum[kF32Rows] = {};
  for (int64_t i = 0; i < p.l; ++i) {
    for (int at = thread; at < kF32Rows * p.dim; at += kF32Columns) {
      const int r = at / static_cast<int>(p.dim), c = at % static_cast<int>(p.dim);
      in[r][c] = tokens[r] < 0 ? 0.0f
                               : p.x.at<const float>(tokens[r] + i, head)[c] + (p.pe.data ? p.pe.at<const float>(i, head)[c] : 0.0f);
    }
    __syncthreads();
    if (column < p.dim) {
      const float* w = p.w.at<const float>(i, head) + column;
      for (int64_t c = 0; c < p.dim; ++c) {
        const float factor = w[c * p.w_in];
#pragma unroll
        for (int r = 0; r < kF32Rows; ++r) sum[r] = fmaf(in[r][c], factor, sum[r]);
      }
    }
    __syncthreads();
  }
  if (column >= p.dim) return;
#pragma unroll
  for (int r = 0; r < kF32Rows; ++r)
    if (tokens[r] >= 0) p.y.at<float>(row0 + r, head)[column] = sum[r];
}

constexpr int kHalfRows = 64, kHalfColumns = 64, kHalfDepth = 32, kHalfThreads = 128;
constexpr int kInPitch = kHalfDepth + 8, kWeightPitch = kHalfColumns + 8;  // halves: ldmatrix meets no bank twice
constexpr size_t kHalfSharedBytes = 2 * 2 * (kHalfRows * kInPitch + kHalfDepth * kWeightPitch);

// Eight elements into shared memory, zeros beyond `count`.
template <class T>
CUL_DEVICE_FN void fetch(T* to, const T* from, int count, bool aligned, const void* anywhere) {
  if (aligned) {
    const bool inside = from && count >= 8;
    cp_async_l2(shared_address(to), inside ? static_cast<const void*>(from) : anywhere, inside);
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = from && i < count ? from[i] : T{};
}

// Computes: y[j] = sum over i < l of (x[token(j) + i] + pe[i]) w[i], a product of depth l D
// Shapes:   x [T,H,D], w [H,l,D,D] -> y [Tc,H,D]; any D
// Layouts:  rows with inner stride 1; 16-byte copies where every row is aligned
// Tiles:    64 rows x 64 columns of one head, 32 channels of one i at a time; 16 rows a warp. With pe, row 0 of the tile is
//           pe itself, whose product is added to every other row: nothing is rounded on its way in
// Shared:   two stages of both operands, rows padded by 16 bytes
// Order:    i, then channels, ascending in steps of 16
// Numerics: f32 sums, one rounding
// Needs:    sm_80 (cp.async, mma.m16n8k16). Limit: 2 l D^2 operations a row and head
// Source:   the definition
template <class T>
__global__ void __launch_bounds__(kHalfThreads) linear_half_kernel(NsaCompressParams p, int64_t column_tiles) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  T* const in = reinterpret_cast<T*>(shared);               // [2][kHalfRows][kInPitch]
  T* const weights = in + 2 * kHalfRows * kInPitch;         // [2][kHalfDepth][kWeightPitch]
  CUL_SHARED(int64_t, tokens, [kHalfRows]);
  CUL_SHARED(float, of_pe, [kHalfColumns]);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int shift = p.pe.data ? 1 : 0;  // rows before those of y
  const int64_t block = blockIdx.x, column0 = block % column_tiles * kHalfColumns, head = block / column_tiles % p.heads,
                row0 = block / column_tiles / p.heads * (kHalfRows - shift);
  if (row0 >= p.cu_out[p.sequences]) return;
  if (thread < kHalfRows) tokens[thread] = thread < shift ? -1 : first_token(p, row0 + thread - shift);
  __syncthreads();

  const int chunks = static_cast<int>((p.dim + kHalfDepth - 1) / kHalfDepth), steps = static_cast<int>(p.l) * chunks;
  const auto load = [&](int step) {
    if (step < steps) {
      const int64_t i = step / chunks, c0 = step % chunks * kHalfDepth;
#pragma unroll
      for (int at = thread; at < kHalfRows * kHalfDepth / 8; at += kHalfThreads) {
        const int r = at / (kHalfDepth / 8);
        const int64_t c = c0 + at % (kHalfDepth / 8) * 8;
        const T* from = r < shift ? p.pe.at<const T>(i, head) + c : tokens[r] < 0 ? nullptr : p.x.at<const T>(tokens[r] + i, head) + c;
        fetch(in + (step % 2 * kHalfRows + r) * kInPitch + at % (kHalfDepth / 8) * 8, from, static_cast<int>(p.dim - c), p.aligned, p.x.data);
      }
#pragma unroll
      for (int at = thread; at < kHalfDepth * kHalfColumns / 8; at += kHalfThreads) {
        const int r = at / (kHalfColumns / 8);
        const int64_t column = column0 + at % (kHalfColumns / 8) * 8;
        const T* from = c0 + r < p.dim ? p.w.at<const T>(i, head) + (c0 + r) * p.w_in + column : nullptr;
        fetch(weights + (step % 2 * kHalfDepth + r) * kWeightPitch + at % (kHalfColumns / 8) * 8, from, static_cast<int>(p.dim - column), p.aligned,
              p.x.data);
      }
    }
    cp_async_commit();
  };

  float sum[kHalfColumns / 8][4] = {};
  load(0);
  for (int step = 0; step < steps; ++step) {
    load(step + 1);
    cp_async_wait<1>();
    __syncthreads();
    const T* const a_tile = in + (step % 2 * kHalfRows + warp * 16) * kInPitch;
    const T* const b_tile = weights + step % 2 * kHalfDepth * kWeightPitch;
#pragma unroll
    for (int k = 0; k < kHalfDepth; k += 16) {
      uint32_t a[4];
      ldmatrix_x4(a, shared_address(a_tile + lane % 16 * kInPitch + k + lane / 16 * 8));
#pragma unroll
      for (int n = 0; n < kHalfColumns; n += 16) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, shared_address(b_tile + (k + lane % 16) * kWeightPitch + n + lane / 16 * 8));
        mma_m16n8k16<T>(sum[n / 8], a, b[0], b[1]);
        mma_m16n8k16<T>(sum[n / 8 + 1], a, b[2], b[3]);
      }
    }
    __syncthreads();
  }
  cp_async_wait<0>();

  if (thread < 4) {  // row 0: lanes 0..3 of the first warp
#pragma unroll
    for (int n = 0; n < kHalfColumns / 8; ++n) {
      of_pe[n * 8 + lane * 2] = shift ? sum[n][0] : 0.0f;
      of_pe[n * 8 + lane * 2 + 1] = shift ? sum[n][1] : 0.0f;
    }
  }
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = warp * 16 + lane / 4 + half * 8;
    if (tokens[r] < 0) continue;
    T* const y = p.y.at<T>(row0 + r - shift, head);
#pragma unroll
    for (int n = 0; n < kHalfColumns / 8; ++n)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int column = n * 8 + lane % 4 * 2 + j;
        if (column0 + column < p.dim) y[column0 + column] = from_float<T>(sum[n][2 * half + j] + of_pe[column]);
      }
  }
}

unsigned grid(int64_t blocks) { return static_cast<unsigned>(blocks); }

}  // namespace

void compressed_starts(const int32_t* cu_seqlens, int32_t* cu_out, int64_t sequences, int64_t l, int64_t d, NativeStream stream) {
  launch(starts_kernel, dim3(1), dim3(kStartThreads), 0, stream, cu_seqlens, cu_out, sequences, l, d);
}

void compress_rows(const NsaCompressParams& p, NativeStream stream) {
  if (p.out_rows == 0 || p.heads == 0 || p.dim == 0) return;
  const auto mean = [&](auto tag) {
    using T = decltype(tag);
    const int64_t packs = (p.dim + Pack<T>::kSize - 1) / Pack<T>::kSize, items = p.out_rows * p.heads * packs;
    launch(mean_kernel<T>, dim3(grid((items + 255) / 256)), dim3(256), 0, stream, p, packs);
  };
  const auto half = [&](auto tag) {
    using T = decltype(tag);
    const int64_t rows = kHalfRows - (p.pe.data ? 1 : 0), columns = (p.dim + kHalfColumns - 1) / kHalfColumns;
    launch(linear_half_kernel<T>, dim3(grid((p.out_rows + rows - 1) / rows * p.heads * columns)), dim3(kHalfThreads), kHalfSharedBytes,
           stream, p, columns);
  };
  if (!p.linear) {
    with_float(p.dtype, mean);
  } else if (p.dtype == DType::f32) {
    const int64_t columns = (p.dim + kF32Columns - 1) / kF32Columns;
    launch(linear_f32_kernel, dim3(grid((p.out_rows + kF32Rows - 1) / kF32Rows * p.heads * columns)), dim3(kF32Columns), 0, stream, p,
           columns);
  } else if (p.dtype == DType::f16) {
    half(half_t{});
  } else {
    half(bfloat16_t{});
  }
}

void nsa_compress(const NsaCompressParams& p, NativeStream stream) {
  if (p.validate) validate("nsa_compress", p, stream);
  compressed_starts(p.cu_seqlens, p.cu_out, p.sequences, p.l, p.d, stream);
  compress_rows(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include <algorithm>

#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/half_tile.cuh"
#include "ops/kv_cache/top_keys.cuh"
#include "ops/sparse_attention/linear_part.cuh"
#include "ops/sparse_attention/list_tour.cuh"
#include "ops/sparse_attention/sparse_linear_attention.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

using namespace sla;

// Computes: the mean query and the mean key of each block
// Shapes:   q, k [B,H,L,D] -> means f32 [2,BH,n,D]
// Layouts:  rows anywhere, channels contiguous
// Tiles:    a block of tokens a block of threads; a thread every 128th channel
// Shared:   none
// Order:    tokens ascending
// Numerics: f32
// Needs:    sm_80. Limit: the bytes of q and k, once
// Source:   SLA, arXiv:2509.24006
template <class T>
__global__ void __launch_bounds__(kThreads) block_means_kernel(Params p) {
  const int64_t all = p.batch * p.heads * p.blocks;
  const bool keys = blockIdx.x >= all;
  const auto [head, j] = block_divide(keys ? blockIdx.x - all : blockIdx.x, p.blocks);
  const auto [b, h] = block_divide(head, p.heads);
  const Params::Rows& x = keys ? p.k : p.q;
  float* const to = in_workspace<float>(p, p.plan.means_at) + blockIdx.x * p.dim;
  for (int64_t c = threadIdx.x; c < p.dim; c += kThreads) {
    float sum = 0;
    for (int64_t t = j * p.block; t < p.block_end(j); ++t) sum += to_float(x.at<const T>(b, h, t)[c]);
    to[c] = sum / static_cast<float>(p.block_end(j) - j * p.block);
  }
}

// Computes: which key blocks are critical, marginal or negligible for a query block
// Shapes:   means -> classes u8 [BH,n,n], lists of the critical ones i32 [BH,n,critical], ascending
// Layouts:  as the workspace
// Tiles:    a query block a block; a warp a product at a time
// Shared:   n keys; a histogram of 256 bins
// Order:    a lane every 32nd channel, lanes by halves
// Numerics: f32; ties go to the lower block
// Needs:    sm_80. Limit: n^2 D operations a head
// Source:   SLA, arXiv:2509.24006; radix selection
__global__ void __launch_bounds__(kThreads) classify_kernel(Params p) {
  CUL_DYNAMIC_SHARED(uint32_t, keys, 16);
  CUL_SHARED(BlockKeys<kThreads>::Shared, shared, );
  const int64_t all = p.batch * p.heads * p.blocks, row = blockIdx.x, head = block_divide(row, p.blocks).quotient;
  const float* const means = in_workspace<const float>(p, p.plan.means_at);
  const float* const query = means + row * p.dim;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t j = threadIdx.x / 32; j < p.blocks; j += kWarps) {
    const float* const key = means + (all + head * p.blocks + j) * p.dim;
    float sum = 0;
    for (int64_t c = lane; c < p.dim; c += 32) sum = fmaf(query[c], key[c], sum);
    sum = warp_sum(sum);
    if (lane == 0) keys[j] = order_key(p.scale * sum);
  }
  __syncthreads();
  uint8_t* const classes = in_workspace<uint8_t>(p, p.plan.classes_at) + row * p.blocks;
  int32_t* const list = in_workspace<int32_t>(p, p.plan.lists_at) + row * p.critical;
  const auto key = [&](int64_t i) { return keys[i]; };
  BlockKeys<kThreads> block{shared};
  const TopKeys critical = block.top(p.blocks, p.critical, key), others = block.top(p.blocks, p.blocks - p.negligible, key);
  for (int64_t j = threadIdx.x; j < p.blocks; j += kThreads) classes[j] = Params::kNegligible;
  __syncthreads();
  block.emit(p.blocks, others, key, [&](int64_t j, int64_t) { classes[j] = Params::kMarginal; });
  __syncthreads();
  block.emit(p.blocks, critical, key, [&](int64_t j, int64_t at) {
    classes[j] = Params::kCritical;
    list[at] = static_cast<int32_t>(j);
  });
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
__global__ void __launch_bounds__(kThreads) states_kernel(Params p) {
  constexpr int kAtOnce = 16, kChannels = 8;
  CUL_DYNAMIC_SHARED(float, shared, 16);
  const int dim = static_cast<int>(p.dim), lane = static_cast<int>(threadIdx.x) % 32;
  float* const keys = shared;
  float* const values = shared + kAtOnce * dim;
  const auto [head, j] = block_divide(blockIdx.x, p.blocks);
  const auto [b, h] = block_divide(head, p.heads);
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
// Shapes:   states, classes -> sums f32 [BH,n,D+1,D], or with all blocks [BH,1,D+1,D]
// Layouts:  as the workspace
// Tiles:    kRows query blocks and 128 elements of the state a block: an element is read once for all of them
// Shared:   none; classes from L1
// Order:    key blocks ascending
// Numerics: f32
// Needs:    sm_80. Limit: n^2 D^2 additions a head; the bytes of the states n / kRows times, from L2
// Source:   SLA, arXiv:2509.24006
template <int kRows>
__global__ void __launch_bounds__(kThreads) sum_states_kernel(Params p, int64_t parts) {
  const int64_t rows = p.mode == CUL_SLA_ALL ? 1 : p.blocks, groups = block_divide(rows + kRows - 1, kRows).quotient;
  const auto [item, part] = block_divide(blockIdx.x, parts);
  const auto [head, group] = block_divide(item, groups);
  const int64_t element = part * kThreads + threadIdx.x, first = group * kRows;
  const bool there = element < state_size(p);
  const float* const states = in_workspace<const float>(p, p.plan.states_at) + head * p.blocks * state_size(p) + element;
  const uint8_t* const classes = in_workspace<const uint8_t>(p, p.plan.classes_at) + (head * p.blocks + first) * p.blocks;
  float sums[kRows] = {};
  for (int64_t j = 0; j < p.blocks; ++j) {
    const float x = there ? states[j * state_size(p)] : 0.0f;
#pragma unroll
    for (int i = 0; i < kRows; ++i)
      if (first + i < rows && (p.mode == CUL_SLA_ALL || p.is_linear(classes[i * p.blocks + j]))) sums[i] += x;
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
__global__ void __launch_bounds__(kThreads) linear_part_kernel(Params p, int64_t tiles) {
  constexpr int kAtOnce = 16;
  CUL_DYNAMIC_SHARED(float, shared, 16);
  CUL_SHARED(float, inverse, [kAtOnce]);
  const int dim = static_cast<int>(p.dim), lane = static_cast<int>(threadIdx.x) % 32;
  float* const rows = shared;
  float* const linear = shared + kAtOnce * dim;
  const auto [row, tile] = block_divide(blockIdx.x, tiles);
  const auto [head, i] = block_divide(row, p.blocks);
  const auto [b, h] = block_divide(head, p.heads);
  const int64_t first = i * p.block + tile * kAtOnce;
  const int tokens = static_cast<int>(min(int64_t{kAtOnce}, p.block_end(i) - first));
  if (tokens <= 0) return;
  if (p.has_linear()) {
    const float* const sums =
        in_workspace<const float>(p, p.plan.sums_at) + (p.mode == CUL_SLA_ALL ? head : head * p.blocks + i) * state_size(p);
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

// Tiles of rows of a query block over its critical blocks.
struct CriticalTours {
  Params p;
  int32_t tile_rows, per_block;
  int64_t size;  // bytes of an element

  CUL_DEVICE_FN ListTour tour(int64_t index) const {
    const auto [row, part] = block_divide(index, per_block);
    const auto [head, i] = block_divide(row, p.blocks);
    const auto place = block_divide(head, p.heads);
    const int64_t from = i * p.block + part * tile_rows;
    ListTour tour{};
    tour.count = static_cast<int>(min(int64_t{tile_rows}, p.block_end(i) - from));
    if (tour.count <= 0) return tour;
    const auto at = [&](const Params::Rows& x, int64_t token) {
      return static_cast<char*>(x.data) + (place.quotient * x.batch + place.rest * x.head + token * x.row) * size;
    };
    tour.q_rows = at(p.q, from);
    tour.o_rows = at(p.o, from);
    tour.k = at(p.k, 0);
    tour.v = at(p.v, 0);
    tour.q_stride = p.q.row * size;
    tour.o_stride = p.o.row * size;
    tour.k_stride = p.k.row * size;
    tour.v_stride = p.v.row * size;
    tour.list = in_workspace<const int32_t>(p, p.plan.lists_at) + row * p.critical;
    tour.entries = static_cast<int>(p.critical);
    tour.block = static_cast<int>(p.block);
    tour.keys = static_cast<int>(p.length);
    return tour;
  }
};

template <class T>
void run(const Params& p, NativeStream stream) {
  const int64_t heads = p.batch * p.heads, all = heads * p.blocks;
  const auto grid = [](int64_t blocks) { return dim3(static_cast<unsigned>(blocks)); };
  launch(block_means_kernel<T>, grid(2 * all), dim3(kThreads), 0, stream, p);
  launch(classify_kernel, grid(all), dim3(kThreads), static_cast<size_t>(p.blocks) * 4, stream, p);

  Problem problem{};
  problem.dim = problem.value_dim = static_cast<int32_t>(p.dim);
  problem.scale = p.scale;
  problem.aligned = p.aligned;
  problem.anywhere = p.q.data;
  problem.splits = 1;
  CriticalTours tours{p, sizeof(T) == 2 ? 64 : ListF32Tile::kRows, 1, static_cast<int64_t>(sizeof(T))};
  tours.per_block = static_cast<int32_t>((p.block + tours.tile_rows - 1) / tours.tile_rows);
  if constexpr (sizeof(T) == 2) {
    if (p.dim <= 128)
      launch_half<HalfTile<T, 128>>(problem, tours, all * tours.per_block, stream);
    else
      launch_half<HalfTile<T, 256>>(problem, tours, all * tours.per_block, stream);
  } else {
    launch_f32<ListF32Tile>(problem, tours, all * tours.per_block, stream);
  }

  if (p.has_linear()) {
    const int64_t size = (p.dim + 1) * p.dim, parts = (size + kThreads - 1) / kThreads;
    launch(states_kernel<T>, grid(all), dim3(kThreads), static_cast<size_t>(32 * p.dim) * 4, stream, p);
    if (sizeof(T) == 2 && p.mode != CUL_SLA_ALL)
      launch(sum_states_half_kernel, grid(heads * ((size + kColumns - 1) / kColumns) * ((p.blocks + kQueries - 1) / kQueries)), dim3(kThreads),
             0, stream, p, (size + kColumns - 1) / kColumns);
    else if (p.mode == CUL_SLA_ALL)
      launch(sum_states_kernel<1>, grid(heads * parts), dim3(kThreads), 0, stream, p, parts);
    else
      launch(sum_states_kernel<16>, grid(heads * parts * ((p.blocks + 15) / 16)), dim3(kThreads), 0, stream, p, parts);
  }
  if (!p.has_linear() && !p.proj_b) return;
  if constexpr (sizeof(T) == 2) {
    if (p.has_linear() && p.dim % 16 == 0 && p.dim <= kMostDim) {
      const int64_t tiles = (p.block + kTokens - 1) / kTokens;
      launch(linear_part_half_kernel<T>, grid(all * tiles), dim3(kThreads), static_cast<size_t>(3 * kTokens * (p.dim + 8)) * 2, stream, p, tiles);
      return;
    }
  }
  const int64_t tiles = (p.block + 15) / 16;
  launch(linear_part_kernel<T>, grid(all * tiles), dim3(kThreads), static_cast<size_t>(32 * p.dim) * 4, stream, p, tiles);
}

}  // namespace

void sparse_linear_attention(const Params& p, NativeStream stream) {
  if (p.batch * p.heads * p.length == 0) return;
  switch (p.dtype) {
    case DType::f16: return run<half_t>(p, stream);
    case DType::bf16: return run<bfloat16_t>(p, stream);
    default: return run<float>(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

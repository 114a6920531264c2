#include <algorithm>

#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/half_tile.cuh"
#include "ops/attention/top_keys.cuh"
#include "ops/sparse_attention/hopper_lists.cuh"
#include "ops/sparse_attention/linear_part.cuh"
#include "ops/sparse_attention/linear_part_fma.cuh"
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

constexpr int kScoreThreads = 256, kScoreTile = 64, kScoreChannels = 32;

// Computes: products of the mean queries and mean keys of each pair of blocks, as integers of the same order
// Shapes:   means -> keys u32 [heads,n,n]
// Layouts:  as the workspace
// Tiles:    64 query blocks x 64 key blocks a block, 4 x 4 a thread; 32 channels at a time
// Shared:   32 channels of both, rows padded by 4 bytes
// Order:    channels ascending
// Numerics: f32 FMA
// Needs:    sm_80. Limit: 2 n^2 D operations a head of the FMA pipes
// Source:   SLA, arXiv:2509.24006
__global__ void __launch_bounds__(kScoreThreads) block_scores_kernel(Params p, Group group) {
  CUL_SHARED(float, tiles, [2][kScoreTile][kScoreChannels + 1]);
  const int64_t all = p.batch * p.heads * p.blocks, side = (p.blocks + kScoreTile - 1) / kScoreTile;
  const auto [item, column] = block_divide(blockIdx.x, side);
  const auto [head, row] = block_divide(item, side);
  const int thread = static_cast<int>(threadIdx.x), x = thread % 16, y = thread / 16;
  float sums[4][4] = {};
  for (int64_t channel = 0; channel < p.dim; channel += kScoreChannels) {
    __syncthreads();
    for (int i = thread; i < 2 * kScoreTile * kScoreChannels; i += kScoreThreads) {
      const int c = i % kScoreChannels, r = i / kScoreChannels % kScoreTile, which = i / (kScoreChannels * kScoreTile);
      const int64_t block = (which ? column : row) * kScoreTile + r;
      const float* const means = in_workspace<const float>(p, p.plan.means_at) + (which * all + (group.first + head) * p.blocks + block) * p.dim;
      tiles[which][r][c] = block < p.blocks && channel + c < p.dim ? means[channel + c] : 0.0f;
    }
    __syncthreads();
#pragma unroll 4
    for (int c = 0; c < kScoreChannels; ++c) {
      float q[4], k[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        q[i] = tiles[0][y + 16 * i][c];
        k[i] = tiles[1][x + 16 * i][c];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(q[i], k[j], sums[i][j]);
    }
  }
  uint32_t* const keys = in_workspace<uint32_t>(p, p.plan.keys_at) + head * p.blocks * p.blocks;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t r = row * kScoreTile + y + 16 * i, c = column * kScoreTile + x + 16 * j;
      if (r < p.blocks && c < p.blocks) keys[r * p.blocks + c] = order_key(p.scale * sums[i][j]);
    }
}

constexpr int kClassThreads = 128;

// Computes: which key blocks are critical for a query block, and which its linear part has
// Shapes:   keys u32 [heads,n,n] -> mask u32 [BH,n,words], lists of critical blocks i32 [BH,n,critical], ascending
// Layouts:  as the workspace; a block's bit is mask_bit of it
// Tiles:    a query block a block
// Shared:   a byte a key block; a histogram of 256 bins
// Order:    of no consequence
// Numerics: integers; ties go to the lower block
// Needs:    sm_80. Limit: the bytes of the keys, some twelve times, from L2
// Source:   SLA, arXiv:2509.24006; radix selection
__global__ void __launch_bounds__(kClassThreads) classify_kernel(Params p, Group group) {
  CUL_DYNAMIC_SHARED(uint8_t, linear, 16);
  CUL_SHARED(BlockKeys<kClassThreads>::Shared, shared, );
  const uint32_t* const keys = in_workspace<const uint32_t>(p, p.plan.keys_at) + int64_t{blockIdx.x} * p.blocks;
  const int64_t row = group.first * p.blocks + blockIdx.x;
  int32_t* const list = in_workspace<int32_t>(p, p.plan.lists_at) + row * p.critical;
  const auto key = [&](int64_t i) { return keys[i]; };
  BlockKeys<kClassThreads> block{shared};
  for (int64_t j = threadIdx.x; j < p.blocks; j += kClassThreads) linear[j] = p.is_linear(Params::kNegligible);
  __syncthreads();
  if (p.is_linear(Params::kMarginal) && !p.is_linear(Params::kNegligible)) {
    const TopKeys others = block.top(p.blocks, p.blocks - p.negligible, key);
    block.emit(p.blocks, others, key, [&](int64_t j, int64_t) { linear[j] = 1; });
    __syncthreads();
  }
  const TopKeys critical = block.top(p.blocks, p.critical, key);
  block.emit(p.blocks, critical, key, [&](int64_t j, int64_t at) {
    linear[j] = p.is_linear(Params::kCritical);
    list[at] = static_cast<int32_t>(j);
  });
  if (!p.has_linear()) return;
  __syncthreads();
  uint32_t* const mask = in_workspace<uint32_t>(p, p.plan.mask_at) + row * p.mask_words();
  for (int64_t word = threadIdx.x; word < p.mask_words(); word += kClassThreads) {
    uint32_t bits = 0;
    for (int64_t j = word * 32; j < min(word * 32 + 32, p.blocks); ++j) bits |= uint32_t{linear[j]} << Params::mask_bit(j);
    mask[word] = bits;
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

// The same for compute capability 9.0: all heads of the batch as those of one sequence.
void attend_hopper(const Params& p, NativeStream stream) {
  HopperListCall call{};
  call.dtype = p.dtype;
  call.q = p.in_line(p.q), call.k = p.in_line(p.k), call.v = p.in_line(p.v), call.o = p.in_line(p.o);
  call.query_rows = call.key_rows = p.length;
  call.query_heads = call.kv_heads = p.batch * p.heads;
  call.dim = call.value_dim = p.dim;
  call.block_k = p.block;
  call.scale = p.scale;
  HopperListTours& tours = call.tours;
  tours.sequences = tours.group = tours.shared = 1;
  tours.queries = tours.keys = static_cast<int32_t>(p.length);
  tours.query_heads = static_cast<int32_t>(call.query_heads);
  tours.block_q = static_cast<int32_t>(p.block);
  tours.slots = p.blocks;
  tours.lists = reinterpret_cast<const int32_t*>(static_cast<const char*>(p.workspace) + p.plan.lists_at);
  tours.pitch = p.critical;
  tours.entries = static_cast<int32_t>(p.critical);
  tours.mask_heads = call.query_heads;
  tours.mask_rows = p.blocks;
  hopper_list_attention(call, stream);
}

// The states of a group of heads, their sums and what they add to o.
template <class T>
void run_linear(const Params& p, const Group& group, NativeStream stream) {
  const int64_t rows = group.heads * p.blocks;
  const auto grid = [](int64_t blocks) { return dim3(static_cast<unsigned>(blocks)); };
  const auto over = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  if constexpr (sizeof(T) == 2) {
    if (p.plan.tensor_cores && p.has_linear()) {
      constexpr int kParts = std::is_same_v<T, half_t> ? 2 : 1;
      launch(block_states_kernel<T, kParts>, grid(rows), dim3(kStateThreads), kStateBytes<kParts>, stream, p, group);
      const int64_t columns = over((p.dim + 2) * p.dim, kSumColumns);
      launch(sum_states_kernel<kParts>, grid(group.heads * columns * over(p.sum_rows(), kSumRows)), dim3(kSumThreads),
             kSumStages * kSumStageBytes<kParts>, stream, p, group);
      const int64_t tiles = over(p.block, kPartTokens);
      launch(linear_part_kernel<T, kParts>, grid(rows * tiles), dim3(kPartThreads), 2 * kPartTile * 2, stream, p, group, tiles);
      return;
    }
  }
  if (p.has_linear()) {
    const int64_t parts = over((p.dim + 1) * p.dim, kThreads);
    launch(fma_states_kernel<T>, grid(rows), dim3(kThreads), static_cast<size_t>(32 * p.dim) * 4, stream, p, group);
    if (p.mode == CUL_SLA_ALL)
      launch(fma_sum_states_kernel<1>, grid(group.heads * parts), dim3(kThreads), 0, stream, p, group, parts);
    else
      launch(fma_sum_states_kernel<16>, grid(group.heads * parts * over(p.blocks, 16)), dim3(kThreads), 0, stream, p, group, parts);
  }
  const int64_t tiles = over(p.block, 16);
  launch(fma_linear_part_kernel<T>, grid(rows * tiles), dim3(kThreads), static_cast<size_t>(32 * p.dim) * 4, stream, p, group, tiles);
}

template <class T>
void run(const Params& p, NativeStream stream) {
  const int64_t heads = p.batch * p.heads, all = heads * p.blocks, side = (p.blocks + kScoreTile - 1) / kScoreTile;
  const auto grid = [](int64_t blocks) { return dim3(static_cast<unsigned>(blocks)); };
  const auto each_group = [&](const auto& run) {
    for (int64_t first = 0; first < heads; first += p.plan.heads_at_once) run(Group{first, std::min(p.plan.heads_at_once, heads - first)});
  };
  launch(block_means_kernel<T>, grid(2 * all), dim3(kThreads), 0, stream, p);
  each_group([&](const Group& group) {
    launch(block_scores_kernel, grid(group.heads * side * side), dim3(kScoreThreads), 0, stream, p, group);
    launch(classify_kernel, grid(group.heads * p.blocks), dim3(kClassThreads), static_cast<size_t>(p.blocks), stream, p, group);
  });

  Problem problem{};
  problem.dim = problem.value_dim = static_cast<int32_t>(p.dim);
  problem.scale = p.scale;
  problem.aligned = p.aligned;
  problem.anywhere = p.q.data;
  problem.splits = 1;
  CriticalTours tours{p, sizeof(T) == 2 ? 64 : ListF32Tile::kRows, 1, static_cast<int64_t>(sizeof(T))};
  tours.per_block = static_cast<int32_t>((p.block + tours.tile_rows - 1) / tours.tile_rows);
  if constexpr (sizeof(T) == 2) {
    if (p.plan.hopper)
      attend_hopper(p, stream);
    else if (p.dim <= 128)
      launch_half<HalfTile<T, 128>>(problem, tours, all * tours.per_block, stream);
    else
      launch_half<HalfTile<T, 256>>(problem, tours, all * tours.per_block, stream);
  } else {
    launch_f32<ListF32Tile>(problem, tours, all * tours.per_block, stream);
  }
  if (p.has_linear() || p.proj_b) each_group([&](const Group& group) { run_linear<T>(p, group, stream); });
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

#include "ops/sparse_attention/nsa_kv_order.cuh"

#include <algorithm>

#include "device/atomic.h"
#include "ops/attention/tile/merge.cuh"
#include "ops/sparse_attention/nsa_tours.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// A chunk of queries, and the lists of those that chose each block. An item is (query of the chunk) topk + (entry of its idx).
struct Chunk {
  NsaParams p;
  int64_t first_query;
  int32_t queries, blocks, tile_queries, topk;
  float* o;    // [items, Hq, Dv]
  float* lse;  // [items, Hq]; -inf where no block was attended to
  int32_t *counts, *cursors, *offsets, *tile_starts, *list;

  CUL_DEVICE_FN int slots() const { return static_cast<int>(p.kv_heads) * blocks; }
  // The sequence of a query, -1 for a row of none.
  CUL_DEVICE_FN int sequence(int64_t query) const {
    const int sequences = static_cast<int>(p.sequences);
    if (query >= p.cu_q[sequences]) return -1;
    int low = 0, high = sequences;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (p.cu_q[middle] <= query ? low : high) = middle;
    }
    return low;
  }
  CUL_DEVICE_FN int position(int64_t query, int b) const {
    return static_cast<int>(query - p.cu_q[b]) + (p.cu_k[b + 1] - p.cu_k[b]) - (p.cu_q[b + 1] - p.cu_q[b]);
  }
  // Where block `block` of sequence b is counted; sequences have room for their blocks and at most one more.
  CUL_DEVICE_FN int slot(int head, int b, int block) const {
    return head * blocks + static_cast<int>(first_tile(p.cu_k, b, 1, static_cast<int>(p.block))) + block;
  }
};

constexpr int kItemThreads = 256, kScanThreads = 1024;

// Computes: every block's count and cursor to 0
// Shapes:   counts, cursors i32 [Hkv, blocks]
// Layouts:  contiguous
// Tiles:    a block of keys a thread
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of the counts
// Source:   Yan et al., Flash Sparse Attention, arXiv:2508.18224
__global__ void __launch_bounds__(kItemThreads) clear_kernel(Chunk c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kItemThreads + threadIdx.x;
  if (i < c.slots()) c.counts[i] = c.cursors[i] = 0;
}

// Computes: how often each block is chosen; then, with `place`, the list of who chose it
// Shapes:   idx [Hkv,Tq,topk] -> counts [Hkv, blocks], list [Hkv, queries topk]
// Layouts:  rows of idx
// Tiles:    an entry a thread
// Shared:   none
// Order:    integer atomics: the order within a list is not determined, and no result depends on it
// Numerics: exact
// Needs:    sm_80. Limit: the bytes of idx, twice
// Source:   Yan et al., Flash Sparse Attention, arXiv:2508.18224: blocks outside, queries gathered
__global__ void __launch_bounds__(kItemThreads) list_kernel(Chunk c, int32_t place) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kItemThreads + threadIdx.x, items = int64_t{c.queries} * c.topk;
  const int head = static_cast<int>(at / items), item = static_cast<int>(at % items);
  if (head >= c.p.kv_heads) return;
  const int64_t query = c.first_query + item / c.topk;
  const int b = c.sequence(query), block = b < 0 ? -1 : c.p.idx_of(head, query)[item % c.topk];
  const bool chosen = block >= 0 && int64_t{block} * c.p.block <= c.position(query, b);
  if (!place) {
    if (chosen) {
      atomicAdd(&c.counts[c.slot(head, b, block)], 1);
      return;
    }
    const int group = static_cast<int>(c.p.group());
    for (int h = head * group; h < (head + 1) * group; ++h) c.lse[item * c.p.query_heads + h] = -INFINITY;
    return;
  }
  if (!chosen) return;
  const int slot = c.slot(head, b, block);
  c.list[c.offsets[slot] + atomicAdd(&c.cursors[slot], 1)] = item;
}

// Computes: offsets and tile_starts, the running sums of counts and of the tiles that they make
// Shapes:   [slots] -> [slots + 1]
// Layouts:  compact
// Tiles:    one block, 1024 slots at a time
// Shared:   two sums a warp
// Order:    exact integers
// Numerics: 32 bits
// Needs:    sm_80. Limit: latency
// Source:   the definition
__global__ void __launch_bounds__(kScanThreads) scan_kernel(Chunk c) {
  CUL_SHARED(int, counts_of_warp, [kScanThreads / 32]);
  CUL_SHARED(int, tiles_of_warp, [kScanThreads / 32]);
  const int thread = static_cast<int>(threadIdx.x);
  int counts_before = 0, tiles_before = 0;
  for (int first = 0; first < c.slots(); first += kScanThreads) {
    const int slot = first + thread, count = slot < c.slots() ? c.counts[slot] : 0;
    const int tiles = (count + c.tile_queries - 1) / c.tile_queries;
    int count_sum = warp_inclusive_sum(count), tile_sum = warp_inclusive_sum(tiles);
    if (thread % 32 == 31) {
      counts_of_warp[thread / 32] = count_sum;
      tiles_of_warp[thread / 32] = tile_sum;
    }
    __syncthreads();
    int count_total = 0, tile_total = 0;
    for (int w = 0; w < kScanThreads / 32; ++w) {
      if (w < thread / 32) {
        count_sum += counts_of_warp[w];
        tile_sum += tiles_of_warp[w];
      }
      count_total += counts_of_warp[w];
      tile_total += tiles_of_warp[w];
    }
    if (slot < c.slots()) {
      c.offsets[slot] = counts_before + count_sum - count;
      c.tile_starts[slot] = tiles_before + tile_sum - tiles;
    }
    counts_before += count_total;
    tiles_before += tile_total;
    __syncthreads();
  }
  if (thread == 0) {
    c.offsets[c.slots()] = counts_before;
    c.tile_starts[c.slots()] = tiles_before;
  }
}

// Queries that chose a block, their heads beside each other, and the keys of that block.
struct ChosenTour : PlainKeys {
  Chunk c;
  NsaRows all;
  const int32_t* items;
  int head, sequence, count, keys;  // keys of the block
  int64_t first_key, block_begin;   // of the block: the key's row, its place in the sequence

  struct Row {
    int end;
  };
  CUL_DEVICE_FN int item(int r) const { return items[r / all.group]; }
  CUL_DEVICE_FN int64_t query(int r) const { return c.first_query + item(r) / c.topk; }
  CUL_DEVICE_FN int head_of(int r) const { return head * all.group + r % all.group; }

  CUL_DEVICE_FN int rows() const { return count; }
  CUL_DEVICE_FN const void* q(int r) const { return all.q.at(0, query(r), head_of(r)); }
  CUL_DEVICE_FN void* o(int) const { return nullptr; }
  CUL_DEVICE_FN float* lse(int) const { return nullptr; }
  CUL_DEVICE_FN float sink(int) const { return kNoScore; }
  CUL_DEVICE_FN int64_t index(int r) const { return int64_t{item(r)} * all.query_heads + head_of(r); }

  CUL_DEVICE_FN int begin() const { return 0; }
  CUL_DEVICE_FN int end() const { return keys; }
  CUL_DEVICE_FN KeyPlace place(int n) const { return {all.k.at(0, first_key + n, head), all.v.at(0, first_key + n, head)}; }
  CUL_DEVICE_FN bool edge(int, int) const { return true; }  // cheaper than to look who is near the diagonal
  CUL_DEVICE_FN Row row(int r) const {
    if (r >= count) return {0};
    return {static_cast<int>(min(c.position(query(r), sequence) + 1 - block_begin, int64_t{keys}))};
  }
  CUL_DEVICE_FN bool sees(Row row, int n) const { return n < row.end; }
};

struct ChosenTours {
  Chunk c;
  NsaRows rows;

  CUL_DEVICE_FN ChosenTour tour(int64_t tile) const {
    ChosenTour tour{};
    tour.c = c;  // in any case: what is the same for all tiles stays a parameter of the kernel and takes no registers
    tour.all = rows;
    if (tile >= c.tile_starts[c.slots()]) return tour;
    int low = 0, high = c.slots();  // tile_starts[low] <= tile < tile_starts[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (c.tile_starts[middle] <= tile ? low : high) = middle;
    }
    const int within = static_cast<int>(tile) - c.tile_starts[low], slot = low % c.blocks;
    tour.head = low / c.blocks;
    tour.items = c.list + c.offsets[low] + within * c.tile_queries;
    tour.count = min(c.counts[low] - within * c.tile_queries, c.tile_queries) * rows.group;
    tour.sequence = c.sequence(tour.query(0));
    const int b = tour.sequence;
    tour.block_begin = (slot - first_tile(c.p.cu_k, b, 1, static_cast<int>(c.p.block))) * c.p.block;
    tour.first_key = c.p.cu_k[b] + tour.block_begin;
    tour.keys = static_cast<int>(min(c.p.block, c.p.cu_k[b + 1] - tour.first_key));
    return tour;
  }
};

template <class Out>
void merge(const Chunk& c, const NsaParams& p, NsaPartial partial, NativeStream stream) {
  MergeRows rows{};
  const int64_t Dv = p.value_dim, Hq = p.query_heads;
  rows.rows = c.queries * Hq;
  rows.count = c.queries;
  rows.heads = Hq;
  rows.states = c.topk;
  rows.dim = static_cast<int32_t>(Dv);
  rows.in_o.data = reinterpret_cast<char*>(c.o);
  rows.in_o.row = c.topk * Hq * Dv * 4;
  rows.in_o.head = Dv * 4;
  rows.o_state = Hq * Dv * 4;
  rows.in_lse.data = reinterpret_cast<char*>(c.lse);
  rows.in_lse.row = c.topk * Hq * 4;
  rows.in_lse.head = 4;
  rows.lse_state = Hq * 4;
  if (partial.o) {
    rows.o = byte_rows({partial.o + c.first_query * Hq * Dv, Hq * Dv, Dv}, 4);
    rows.lse = byte_rows({partial.lse + c.first_query * Hq, Hq, 1}, 4);
    rows.aligned = Dv % 8 == 0;
  } else {
    const auto bytes = static_cast<int64_t>(size_of(p.dtype));
    rows.o = byte_rows(p.o, bytes);
    rows.o.data += c.first_query * rows.o.row;
    rows.lse = byte_rows(p.lse, 4);
    if (rows.lse.data) rows.lse.data += c.first_query * rows.lse.row;
    rows.aligned = p.aligned;
  }
  launch_merge<float, Out>(rows, stream);
}

unsigned blocks_of(int64_t items, int threads) { return static_cast<unsigned>((items + threads - 1) / threads); }

}  // namespace

void nsa_selected_by_blocks(const NsaParams& p, NsaPartial partial, char* workspace, NativeStream stream) {
  const SelectedPlan& plan = p.selected;
  Chunk c;
  c.p = p;
  c.blocks = static_cast<int32_t>(plan.blocks);
  c.tile_queries = plan.tile_queries;
  c.topk = static_cast<int32_t>(p.topk);
  const auto floats = [&](uint64_t at) { return reinterpret_cast<float*>(workspace + at); };
  const auto ints = [&](uint64_t at) { return reinterpret_cast<int32_t*>(workspace + at); };
  c.o = floats(plan.o);
  c.lse = floats(plan.lse);
  c.counts = ints(plan.counts);
  c.cursors = ints(plan.cursors);
  c.offsets = ints(plan.offsets);
  c.tile_starts = ints(plan.tile_starts);
  c.list = ints(plan.list);
  Problem problem = sparse_problem(p);
  problem.partial_o = c.o;
  problem.partial_lse = c.lse;
  problem.partial_rows = plan.chunk * p.topk * p.query_heads;
  const int64_t slots = p.kv_heads * plan.blocks;
  for (c.first_query = 0; c.first_query < p.query_rows; c.first_query += plan.chunk) {
    c.queries = static_cast<int32_t>(std::min(plan.chunk, p.query_rows - c.first_query));
    const int64_t items = p.kv_heads * c.queries * p.topk;
    launch(clear_kernel, dim3(blocks_of(slots, kItemThreads)), dim3(kItemThreads), 0, stream, c);
    launch(list_kernel, dim3(blocks_of(items, kItemThreads)), dim3(kItemThreads), 0, stream, c, 0);
    launch(scan_kernel, dim3(1), dim3(kScanThreads), 0, stream, c);
    launch(list_kernel, dim3(blocks_of(items, kItemThreads)), dim3(kItemThreads), 0, stream, c, 1);
    launch_tours(p.dtype, problem, ChosenTours{c, NsaRows(p, p.k, p.v)}, plan.tiles, stream);
    if (partial.o || p.dtype == DType::f32)
      merge<float>(c, p, partial, stream);
    else if (p.dtype == DType::f16)
      merge<half_t>(c, p, partial, stream);
    else
      merge<bfloat16_t>(c, p, partial, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

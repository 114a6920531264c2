#include "device/validate.h"
#include "ops/sparse_attention/block_sparse_attention.h"
#include "ops/sparse_attention/hopper_lists.cuh"
#include "ops/sparse_attention/sparse_tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Part of a query block, for the heads that share its keys and its row of the mask. Key n is key n % block_k of the row's entry n /
// block_k: entries ascend, so what a row sees under the causal mask is still a beginning of the tour.
struct BlockTour : PlainKeys {
  ByteRows q_rows, k_rows, v_rows, o_rows, lse_rows;
  const int32_t* entries;
  int entry_count, block_k;
  int heads, head, kv_head;
  int64_t first_query, first_key;  // of the sequence
  int query, row0, count, queries, keys;  // row r is row row0 + r of the block that begins with `query`
  bool causal;
  int all, common;  // keys of the tour that some row sees, that every row sees

  struct Row {
    int end;
  };
  CUL_DEVICE_FN int query_of(int r) const { return query + (row0 + r) / heads; }
  CUL_DEVICE_FN int head_of(int r) const { return head + (row0 + r) % heads; }
  // How many keys of the tour lie before key `end` of the sequence.
  CUL_DEVICE_FN int before(int end) const {
    int low = 0, high = entry_count;  // entries [0, low) begin before `end`, those from `high` on do not
    while (low < high) {
      const int middle = (low + high) / 2, entry = entries[middle];
      if (entry >= 0 && int64_t{entry} * block_k < end)
        low = middle + 1;
      else
        high = middle;
    }
    return low == 0 ? 0 : (low - 1) * block_k + min(block_k, end - entries[low - 1] * block_k);
  }
  CUL_DEVICE_FN int seen(int q) const { return before(causal ? min(max(q + keys - queries + 1, 0), keys) : keys); }
  CUL_DEVICE_FN void start() {
    if (count <= 0) return;
    all = seen(query_of(count - 1));
    common = causal ? seen(query_of(0)) : all;
  }

  CUL_DEVICE_FN int rows() const { return count; }
  CUL_DEVICE_FN const void* q(int r) const { return q_rows.at(0, first_query + query_of(r), head_of(r)); }
  CUL_DEVICE_FN void* o(int r) const { return o_rows.at(0, first_query + query_of(r), head_of(r)); }
  CUL_DEVICE_FN float* lse(int r) const { return reinterpret_cast<float*>(lse_rows.at(0, first_query + query_of(r), head_of(r))); }
  CUL_DEVICE_FN float sink(int) const { return kNoScore; }
  CUL_DEVICE_FN int64_t index(int) const { return 0; }

  CUL_DEVICE_FN int begin() const { return 0; }
  CUL_DEVICE_FN int end() const { return all; }
  CUL_DEVICE_FN KeyPlace place(int n) const {
    const int64_t key = first_key + int64_t{entries[n / block_k]} * block_k + n % block_k;
    return {k_rows.at(0, key, kv_head), v_rows.at(0, key, kv_head)};
  }
  CUL_DEVICE_FN bool edge(int, int last) const { return last > common; }
  CUL_DEVICE_FN Row row(int r) const { return {r < count && causal ? seen(query_of(r)) : r < count ? all : 0}; }
  CUL_DEVICE_FN bool sees(const Row& row, int n) const { return n < row.end; }
};

void run_hopper(const BlockSparseParams& p, NativeStream stream) {
  HopperListCall call = hopper_list_call(p, p.block_q, p.block_k, p.shared_heads());
  call.tours.lists = p.col;
  call.tours.row_ptr = p.row_ptr;
  call.tours.mask_heads = p.mask_heads;
  call.tours.mask_rows = p.mask_rows;
  call.tours.causal = p.causal;
  hopper_list_attention(call, stream);
}

struct BlockTours {
  BlockSparseParams p;
  ByteRows q, k, v, o, lse;
  int64_t slots;  // query blocks of all sequences
  int32_t heads;  // that share a row of the mask and a KV head
  int32_t parts;  // tiles of a query block
  int32_t tile_rows;

  CUL_DEVICE_FN BlockTour tour(int64_t index) const {
    const int part = static_cast<int>(index % parts);
    const int64_t units = p.query_heads / heads, unit = index / parts % units;
    const auto at = find_sequence(p.cu_q, static_cast<int>(p.sequences), 1, static_cast<int>(p.block_q), slots - 1 - index / parts / units);
    // What does not depend on the tile is set in any case: it then stays a parameter of the kernel and takes no registers.
    BlockTour tour{};
    const int b = at.sequence;
    tour.q_rows = q;
    tour.k_rows = k;
    tour.v_rows = v;
    tour.o_rows = o;
    tour.lse_rows = lse;
    tour.heads = heads;
    tour.causal = p.causal;
    tour.block_k = static_cast<int>(p.block_k);
    if (b < 0) return tour;
    tour.head = static_cast<int>(unit) * heads;
    tour.kv_head = static_cast<int>(tour.head / p.group());
    tour.first_query = p.cu_q[b];
    tour.first_key = p.cu_k[b];
    tour.queries = p.cu_q[b + 1] - p.cu_q[b];
    tour.keys = p.cu_k[b + 1] - p.cu_k[b];
    const int first = at.tile * static_cast<int>(p.block_q), last = min(first + static_cast<int>(p.block_q), tour.queries);
    tour.query = first;
    tour.row0 = part * tile_rows;
    tour.count = min(tile_rows, (last - first) * heads - tour.row0);
    const int64_t csr = p.row_of(b, tour.head, at.tile);
    tour.entries = p.col + p.row_ptr[csr];
    tour.entry_count = static_cast<int>(p.row_ptr[csr + 1] - p.row_ptr[csr]);
    tour.start();
    return tour;
  }
};

}  // namespace

void block_sparse_attention(const BlockSparseParams& p, NativeStream stream) {
  if (p.validate) validate("block_sparse_attention", p, stream);
  if (p.query_rows == 0 || p.sequences == 0) return;
  if (p.hopper) return run_hopper(p, stream);
  BlockTours tours;
  const auto bytes = static_cast<int64_t>(size_of(p.dtype));
  tours.p = p;
  tours.q = byte_rows(p.q, bytes);
  tours.k = byte_rows(p.k, bytes);
  tours.v = byte_rows(p.v, bytes);
  tours.o = byte_rows(p.o, bytes);
  tours.lse = byte_rows(p.lse, sizeof(float));
  tours.slots = sequence_tiles(p.query_rows, p.sequences, 1, p.block_q);
  tours.heads = static_cast<int32_t>(p.shared_heads());
  tours.tile_rows = tile_rows<SmallF32Tile>(p.dtype);
  tours.parts = static_cast<int32_t>((p.block_q * tours.heads + tours.tile_rows - 1) / tours.tile_rows);
  launch_tours<SmallF32Tile>(p.dtype, sparse_problem(p), tours, tours.slots * (p.query_heads / tours.heads) * tours.parts, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

// Attention over lists of key blocks for compute capability 9.0: tours of attention/hopper/hopper_attention.cuh, and their launch.
//
// Key n is key n % block_k of entry n / block_k of a query block's list: entries ascend, so what a row sees is a beginning of the tour.
// A box of the copy engine is a block, or 64 keys of it; entries behind the end arrive as zeros, by a box outside the tensor.
#pragma once
#include "ops/attention/hopper/hopper_tours.cuh"
#include "ops/sparse_attention/packed.h"

namespace culebra::CUL_DEVICE_NS {

// Up to 64 queries of a query block of one head a warpgroup: a unit. Units of a query block differ in their queries, and in their heads as
// far as these share the list and the KV head.
struct HopperListTour {
  static constexpr bool kOneBox = false;
  const int32_t* list;
  int entries, shift, box_keys, outside;  // shift: of the block's size
  int first_head, shared, group;          // query heads that share the list
  int first_unit, first_query, last_query;  // of the block: [first_query, last_query) of the sequence
  int queries, keys, q0, k0;
  bool causal;
  int end;  // keys of the tour that some row sees

  CUL_DEVICE_FN bool nothing() const { return first_head < 0; }
  CUL_DEVICE_FN int query(int g) const { return first_query + (first_unit + g) / shared * kHopperRows; }
  CUL_DEVICE_FN HopperRows rows(int g) const {
    return {first_head + (first_unit + g) % shared, q0 + query(g), min(max(last_query - query(g), 0), kHopperRows)};
  }
  CUL_DEVICE_FN int kv_head() const { return first_head / group; }
  // Keys of the sequence that a query sees.
  CUL_DEVICE_FN int seen(int q) const { return causal ? min(max(q + keys - queries + 1, 0), keys) : keys; }
  // How many keys of the tour lie before that. The entry is one of the last.
  CUL_DEVICE_FN int before(int key) const {
    int n = entries;
    while (n > 0 && list[n - 1] << shift >= key) --n;
    return n == 0 ? 0 : ((n - 1) << shift) + min(1 << shift, key - (list[n - 1] << shift));
  }
  // Entries from the first one on that begin behind what the tile sees, or are padding, are no part of the tour.
  CUL_DEVICE_FN void start(int groups) {
    int last = 0;
    for (int g = 0; g < groups; ++g) last = max(last, min(query(g) + kHopperRows, last_query));
    const int visible = last > 0 ? seen(last - 1) : 0;
    const auto within = [&](int i) { return list[i] >= 0 && int64_t{list[i]} << shift < visible; };
    if (entries > 0 && !within(entries - 1)) {
      int low = 0, high = entries - 1;
      while (low < high) {
        const int middle = (low + high) / 2;
        if (within(middle))
          low = middle + 1;
        else
          high = middle;
      }
      entries = low;
    }
    end = before(visible);
  }

  CUL_DEVICE_FN IntervalRows::Row hull() const { return {0, end}; }
  CUL_DEVICE_FN IntervalRows::Row interval(int r) const {
    const int q = query(r / kHopperRows) + r % kHopperRows;
    return {0, q >= last_query ? 0 : causal ? before(seen(q)) : end};
  }
  CUL_DEVICE_FN IntervalRows::Row common(int r) const { return interval(r); }
  CUL_DEVICE_FN int box() const { return box_keys; }
  CUL_DEVICE_FN int key_row(int n) const { return n < end ? k0 + (list[n >> shift] << shift) + (n & ((1 << shift) - 1)) : outside; }
};

struct HopperListTours {
  const int32_t* cu_q;  // null: one sequence of `queries` and `keys`
  const int32_t* cu_k;
  int32_t sequences, queries, keys;
  int32_t query_heads, group, shared;
  int32_t parts;  // tiles of a query block
  int32_t block_q, shift, box, outside;
  int64_t slots, first_slot;  // query blocks as find_sequence numbers them, from first_slot on
  // The list of a query block is row i of: row_ptr [i], [i + 1] in `lists`; or `lists` [i pitch], counts[i] entries of it, or `entries`.
  const int32_t* lists;
  const int64_t* row_ptr;
  const int32_t* counts;
  int64_t pitch, mask_heads, mask_rows;
  int32_t entries;
  bool by_slot;  // i is (slot, head); otherwise (sequence, head of the mask, block of the sequence)
  bool causal;

  template <int kGroups>
  CUL_DEVICE_FN HopperListTour tour(int64_t index) const {
    const int part = static_cast<int>(index % parts);
    // Heads one after the other: their keys stay in L2. The last query blocks first: under a causal mask theirs are the longest lists.
    const int64_t set = index / parts / slots, slot = slots - 1 - index / parts % slots;
    const SequenceTile at = cu_q ? find_sequence(cu_q, sequences, 1, block_q, first_slot + slot) : SequenceTile{0, static_cast<int>(slot)};
    HopperListTour tour{};
    tour.first_head = -1;
    const int b = at.sequence;
    if (b < 0) return tour;
    tour.q0 = cu_q ? cu_q[b] : 0;
    tour.k0 = cu_q ? cu_k[b] : 0;
    tour.queries = cu_q ? cu_q[b + 1] - tour.q0 : queries;
    tour.keys = cu_q ? cu_k[b + 1] - tour.k0 : keys;
    tour.first_query = at.tile * block_q;
    tour.last_query = min(tour.first_query + block_q, tour.queries);
    tour.first_unit = part * kGroups;
    tour.first_head = static_cast<int>(set) * shared;
    tour.shared = shared;
    tour.group = group;
    tour.shift = shift;
    tour.box_keys = box;
    tour.outside = outside;
    tour.causal = causal;
    if (tour.query(0) >= tour.last_query) {
      tour.first_head = -1;
      return tour;
    }
    const int64_t head = tour.first_head, row = by_slot ? slot * query_heads + head : (b * mask_heads + head * mask_heads / query_heads) * mask_rows + at.tile;
    tour.list = lists + (row_ptr ? row_ptr[row] : row * pitch);
    tour.entries = row_ptr ? static_cast<int>(row_ptr[row + 1] - row_ptr[row]) : counts ? counts[row] : entries;
    tour.start(kGroups);
    return tour;
  }
};

// A call; strides in elements. In `tours` parts, shift, box and outside follow from the rest.
struct HopperListCall {
  DType dtype;
  TokenRows q, k, v, o, lse;
  int64_t query_rows, key_rows, query_heads, kv_heads, dim, value_dim, block_k;
  float scale;
  HopperListTours tours;
};
HopperListCall hopper_list_call(const PackedHeads& p, int64_t block_q, int64_t block_k, int64_t shared);
void hopper_list_attention(const HopperListCall& call, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

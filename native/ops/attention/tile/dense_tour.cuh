// Tours over keys that lie in the order of their positions: packed sequences and pages, with causality and windows. What a row sees is an
// interval.
#pragma once
#include "ops/attention/attention.h"
#include "ops/attention/tile/tour.cuh"

namespace culebra::CUL_DEVICE_NS {

// Rows of a tensor by their bytes: batch (or page), row, head.
struct ByteRows {
  char* data = nullptr;
  int64_t batch = 0, row = 0, head = 0;

  ByteRows() = default;
  ByteRows(const AttentionParams::Rows& x, int64_t element_bytes)
      : data(static_cast<char*>(x.data)), batch(x.batch * element_bytes), row(x.row * element_bytes), head(x.head * element_bytes) {}
  CUL_DEVICE_FN char* at(int64_t b, int64_t r, int64_t h) const { return data ? data + b * batch + r * row + h * head : nullptr; }
};

// Query rows (query, head of the group): row r of a sequence is query r / group, head r % group. Keys [0, keys) of the sequence.
struct IntervalRows {
  ByteRows q, o, lse;
  const float* sinks;
  int32_t group, query_heads;
  int32_t left, right;  // of a window; -1: no bound; causal: right = 0

  struct Row {
    int begin, end;
  };
  CUL_DEVICE_FN Row interval(int query, int queries, int keys) const {
    const int64_t position = int64_t{query} + keys - queries;
    const int64_t begin = left >= 0 ? max(position - left, int64_t{0}) : 0;
    const int64_t end = right >= 0 ? max(min(position + right + 1, int64_t{keys}), int64_t{0}) : keys;
    return {static_cast<int>(min(begin, end)), static_cast<int>(end)};
  }
};

// A tile of a sequence's rows, with the interval that each sees. Derived tours add place().
struct IntervalTour {
  using Row = IntervalRows::Row;
  IntervalRows all;
  int sequence, kv_head, queries, keys;
  int64_t first_query;  // of the sequence among the rows of q
  int first_row, count;  // of the sequence's rows
  int64_t first_index;
  Row hull, common;  // what some row sees, what every row sees

  CUL_DEVICE_FN IntervalTour(const IntervalRows& all, int sequence, int kv_head, int64_t first_query, int queries, int keys, int first_row,
                             int tile_rows, int64_t first_index)
      : all(all), sequence(sequence), kv_head(kv_head), queries(queries), keys(keys), first_query(first_query), first_row(first_row),
        count(min(tile_rows, queries * all.group - first_row)), first_index(first_index), hull{0, 0}, common{0, 0} {
    if (count <= 0) return;
    const Row low = all.interval(first_row / all.group, queries, keys), high = all.interval((first_row + count - 1) / all.group, queries, keys);
    hull = {low.begin, high.end};
    common = {high.begin, low.end};
  }

  CUL_DEVICE_FN int rows() const { return count; }
  CUL_DEVICE_FN int query(int r) const { return (first_row + r) / all.group; }
  CUL_DEVICE_FN int head(int r) const { return kv_head * all.group + (first_row + r) % all.group; }
  CUL_DEVICE_FN const void* q(int r) const { return all.q.at(sequence, first_query + query(r), head(r)); }
  CUL_DEVICE_FN void* o(int r) const { return all.o.at(sequence, first_query + query(r), head(r)); }
  CUL_DEVICE_FN float* lse(int r) const { return reinterpret_cast<float*>(all.lse.at(sequence, first_query + query(r), head(r))); }
  CUL_DEVICE_FN float sink(int r) const { return all.sinks ? all.sinks[head(r)] : kNoScore; }
  CUL_DEVICE_FN int64_t index(int r) const { return (first_index + query(r)) * all.query_heads + head(r); }

  CUL_DEVICE_FN int begin() const { return hull.begin; }
  CUL_DEVICE_FN int end() const { return hull.end; }
  CUL_DEVICE_FN bool edge(int first, int last) const { return first < common.begin || last > common.end; }
  CUL_DEVICE_FN Row row(int r) const { return r < count ? all.interval(query(r), queries, keys) : Row{0, 0}; }
  CUL_DEVICE_FN bool sees(const Row& row, int n) const { return n >= row.begin && n < row.end; }
};

struct PackedTour : IntervalTour {
  static constexpr bool kPlainKeys = true;
  ByteRows k, v;
  int64_t first_key;

  CUL_DEVICE_FN KeyPlace place(int n) const { return {k.at(0, first_key + n, kv_head), v.at(0, first_key + n, kv_head)}; }
};

// Packed sequences.
struct PackedTours {
  IntervalRows rows;
  ByteRows k, v;
  const int32_t* cu_q;
  const int32_t* cu_k;
  int32_t sequences, kv_heads, tile_rows;
  int32_t section;  // KV heads that go through all tiles before the next ones: their keys and values stay in L2
  int64_t slots;    // tiles of a head, sequence_tiles()

  CUL_DEVICE_FN PackedTour tour(int64_t index) const {
    // Within a section the last tiles come first: under a causal mask they are the longest.
    const int64_t part = index / (slots * section), within = index - part * slots * section;
    const int64_t first_head = part * section, heads = min(int64_t{section}, kv_heads - first_head);
    const int kv_head = static_cast<int>(first_head + within % heads);
    const SequenceTile at = find_sequence(cu_q, sequences, rows.group, tile_rows, slots - 1 - within / heads);
    const int b = at.sequence;
    const int64_t q0 = b < 0 ? 0 : cu_q[b], k0 = b < 0 ? 0 : cu_k[b];
    const int queries = b < 0 ? 0 : static_cast<int>(cu_q[b + 1] - q0), keys = b < 0 ? 0 : static_cast<int>(cu_k[b + 1] - k0);
    return {IntervalTour(rows, 0, kv_head, q0, queries, keys, at.tile * tile_rows, tile_rows, q0), k, v, k0};
  }
};

struct PagedTour : IntervalTour {
  ByteRows k, v;
  const int32_t* table;  // the sequence's
  int32_t page_size;
  float k_scale, v_scale;

  CUL_DEVICE_FN KeyPlace place(int n) const {
    const int page = table[n / page_size], offset = n % page_size;
    if (page < 0) return {nullptr, nullptr};
    return {k.at(page, offset, kv_head), v.at(page, offset, kv_head)};
  }
  CUL_DEVICE_FN float key_scale() const { return k_scale; }
  CUL_DEVICE_FN float value_scale() const { return v_scale; }
};

// Pages: B sequences of the same number of queries.
struct PagedTours {
  IntervalRows rows;
  ByteRows k, v;
  const int32_t* page_table;
  const int32_t* kv_len;
  const float* k_scales;
  const float* v_scales;
  int64_t table_stride, key_rows;
  int32_t page_size, kv_heads, queries, tile_rows, row_tiles;

  CUL_DEVICE_FN PagedTour tour(int64_t index) const {
    const int tile = static_cast<int>(index % row_tiles), kv_head = static_cast<int>(index / row_tiles % kv_heads),
              b = static_cast<int>(index / row_tiles / kv_heads);
    const int keys = static_cast<int>(min(int64_t{kv_len[b]}, key_rows));  // a length beyond the table is the validator's
    return {IntervalTour(rows, b, kv_head, 0, queries, keys, tile * tile_rows, tile_rows, int64_t{b} * queries), k, v,
            page_table + b * table_stride, page_size, k_scales ? k_scales[kv_head] : 1.0f, v_scales ? v_scales[kv_head] : 1.0f};
  }
};

}  // namespace culebra::CUL_DEVICE_NS

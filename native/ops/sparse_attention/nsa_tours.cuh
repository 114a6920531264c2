// The tours of native sparse attention: compressed keys, selected blocks, the window.
#pragma once
#include "ops/sparse_attention/nsa.h"
#include "ops/sparse_attention/sparse_tiles.cuh"

namespace culebra::CUL_DEVICE_NS {

// What the tours of a call have in common.
struct NsaRows {
  ByteRows q, k, v, o, lse;
  int32_t group, query_heads;

  NsaRows() = default;
  NsaRows(const NsaParams& p, const TokenRows& keys, const TokenRows& values)
      : q(byte_rows(p.q, static_cast<int64_t>(size_of(p.dtype)))), k(byte_rows(keys, static_cast<int64_t>(size_of(p.dtype)))),
        v(byte_rows(values, static_cast<int64_t>(size_of(p.dtype)))), o(byte_rows(p.o, static_cast<int64_t>(size_of(p.dtype)))),
        lse(byte_rows(p.lse, sizeof(float))), group(static_cast<int32_t>(p.group())), query_heads(static_cast<int32_t>(p.query_heads)) {}
};

// Rows (query, head of the group) of one KV head from row `row0` of query `query` on; position: of that query.
struct NsaTour : PlainKeys {
  NsaRows all;
  int64_t query, first_key;
  int kv_head, row0, count, position;

  CUL_DEVICE_FN int query_of(int r) const { return (row0 + r) / all.group; }
  CUL_DEVICE_FN int head_of(int r) const { return kv_head * all.group + (row0 + r) % all.group; }
  CUL_DEVICE_FN int rows() const { return count; }
  CUL_DEVICE_FN const void* q(int r) const { return all.q.at(0, query + query_of(r), head_of(r)); }
  CUL_DEVICE_FN void* o(int r) const { return all.o.at(0, query + query_of(r), head_of(r)); }
  CUL_DEVICE_FN float* lse(int r) const { return reinterpret_cast<float*>(all.lse.at(0, query + query_of(r), head_of(r))); }
  CUL_DEVICE_FN float sink(int) const { return kNoScore; }
  CUL_DEVICE_FN int64_t index(int r) const { return (query + query_of(r)) * all.query_heads + head_of(r); }
  CUL_DEVICE_FN KeyPlace key(int64_t at) const { return {all.k.at(0, first_key + at, kv_head), all.v.at(0, first_key + at, kv_head)}; }
};

// Keys that a row sees as an interval: compressed ones, or those of the window.
struct NsaIntervalTour : NsaTour {
  struct Row {
    int begin, end;
  };
  int l, d, window, keys;  // l 0: the window
  Row hull, common;

  CUL_DEVICE_FN Row interval(int r) const {
    const int at = position + query_of(r);
    if (l == 0) return {max(at + 1 - window, 0), max(at + 1, 0)};
    return {0, min(at + 1 < l ? 0 : (at + 1 - l) / d + 1, keys)};
  }
  CUL_DEVICE_FN void start() {
    if (count <= 0) return;
    const Row low = interval(0), high = interval(count - 1);
    hull = {low.begin, high.end};
    common = {high.begin, low.end};
  }
  CUL_DEVICE_FN int begin() const { return hull.begin; }
  CUL_DEVICE_FN int end() const { return hull.end; }
  CUL_DEVICE_FN KeyPlace place(int n) const { return key(n); }
  CUL_DEVICE_FN bool edge(int first, int last) const { return first < common.begin || last > common.end; }
  CUL_DEVICE_FN Row row(int r) const { return r < count ? interval(r) : Row{0, 0}; }
  CUL_DEVICE_FN bool sees(const Row& row, int n) const { return n >= row.begin && n < row.end; }
};

struct NsaIntervalTours {
  NsaRows rows;
  const int32_t* cu_q;
  const int32_t* cu_k;
  const int32_t* cu_keys;  // of what is numbered: compressed keys, or tokens
  int64_t slots;
  int32_t sequences, kv_heads, tile_rows, l, d, window;

  CUL_DEVICE_FN NsaIntervalTour tour(int64_t index) const {
    // The last tiles first: they are the longest.
    const SequenceTile at = find_sequence(cu_q, sequences, rows.group, tile_rows, slots - 1 - index / kv_heads);
    // What does not depend on the tile is set in any case: it then stays a parameter of the kernel and takes no registers.
    NsaIntervalTour tour{};
    tour.all = rows;
    tour.l = l;
    tour.d = d;
    tour.window = window;
    if (at.sequence < 0) return tour;
    const int b = at.sequence, queries = cu_q[b + 1] - cu_q[b];
    tour.query = cu_q[b];
    tour.first_key = cu_keys[b];
    tour.kv_head = static_cast<int>(index % kv_heads);
    tour.row0 = at.tile * tile_rows;
    tour.count = min(tile_rows, queries * rows.group - tour.row0);
    tour.position = cu_k[b + 1] - cu_k[b] - queries;
    tour.keys = cu_keys[b + 1] - cu_keys[b];
    tour.start();
    return tour;
  }
};

// One query's blocks: key n is key n % block of the block that entry n / block names.
struct NsaSelectedTour : NsaTour {
  const int32_t* idx;
  int entries, block;

  struct Row {};
  CUL_DEVICE_FN int64_t key_of(int n) const { return int64_t{idx[n / block]} * block + n % block; }
  CUL_DEVICE_FN int begin() const { return 0; }
  CUL_DEVICE_FN int end() const { return entries * block; }
  CUL_DEVICE_FN KeyPlace place(int n) const {
    const int64_t at = key_of(n);
    return at >= 0 && at <= position ? key(at) : KeyPlace{nullptr, nullptr};
  }
  CUL_DEVICE_FN bool edge(int first, int last) const {
    for (int e = first / block; e <= (last - 1) / block; ++e)
      if (idx[e] < 0 || (int64_t{idx[e]} + 1) * block - 1 > position) return true;
    return false;
  }
  CUL_DEVICE_FN Row row(int) const { return {}; }
  CUL_DEVICE_FN bool sees(Row, int n) const {
    const int64_t at = key_of(n);
    return at >= 0 && at <= position;
  }
};

struct NsaSelectedTours {
  NsaRows rows;
  const int32_t* cu_q;
  const int32_t* cu_k;
  const int32_t* idx;
  int64_t idx_head, idx_row;
  int32_t sequences, kv_heads, tile_rows, parts, entries, block;  // parts: tiles of a group

  CUL_DEVICE_FN NsaSelectedTour tour(int64_t index) const {
    NsaSelectedTour tour{};
    tour.all = rows;
    tour.block = block;
    tour.kv_head = static_cast<int>(index / parts % kv_heads);
    tour.query = index / parts / kv_heads;
    if (tour.query >= cu_q[sequences]) return tour;  // a row of no sequence
    int low = 0, high = sequences;                   // cu_q[low] <= query < cu_q[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (cu_q[middle] <= tour.query ? low : high) = middle;
    }
    tour.first_key = cu_k[low];
    tour.row0 = static_cast<int>(index % parts) * tile_rows;
    tour.count = min(tile_rows, rows.group - tour.row0);
    tour.position = static_cast<int>(tour.query - cu_q[low]) + (cu_k[low + 1] - cu_k[low]) - (cu_q[low + 1] - cu_q[low]);
    tour.idx = idx + tour.kv_head * idx_head + tour.query * idx_row;
    // Padding at the end, and blocks behind the query there, are no work.
    tour.entries = entries;
    while (tour.entries > 0 && (tour.idx[tour.entries - 1] < 0 || int64_t{tour.idx[tour.entries - 1]} * block > tour.position))
      --tour.entries;
    return tour;
  }
};

}  // namespace culebra::CUL_DEVICE_NS

// From a checked call of attention or paged_attention to what the loops take.
#pragma once
#include "ops/attention/tile/dense_tour.cuh"

namespace culebra::CUL_DEVICE_NS {

inline Problem problem_of(const AttentionParams& p) {
  Problem problem{};
  problem.dim = static_cast<int32_t>(p.dim);
  problem.value_dim = static_cast<int32_t>(p.value_dim);
  problem.scale = p.scale;
  problem.softcap = p.softcap;
  problem.aligned = p.aligned;
  problem.f8 = p.cache_dtype == DType::f8e4m3;
  problem.anywhere = p.q.data;
  problem.splits = p.plan.splits;
  problem.split_keys = p.plan.split_keys;
  if (p.plan.partial) {
    problem.partial_rows = (p.cu_q ? 1 : p.sequences) * p.query_rows * p.query_heads;
    problem.partial_o = static_cast<float*>(p.workspace);
    problem.partial_lse = problem.partial_o + p.plan.splits * problem.partial_rows * p.value_dim;
  }
  return problem;
}

inline IntervalRows rows_of(const AttentionParams& p) {
  const auto bytes = static_cast<int64_t>(size_of(p.dtype));
  // A bound beyond 2^30 is none: it leaves sums of positions in range.
  const auto bound = [](int64_t window) { return window > int64_t{1} << 30 ? -1 : static_cast<int32_t>(window); };
  IntervalRows rows;
  rows.q = ByteRows(p.q, bytes);
  rows.o = ByteRows(p.o, bytes);
  rows.lse = ByteRows(p.lse, sizeof(float));
  rows.sinks = p.sink;
  rows.group = static_cast<int32_t>(p.group());
  rows.query_heads = static_cast<int32_t>(p.query_heads);
  rows.left = bound(p.window_left);
  rows.right = p.causal ? 0 : bound(p.window_right);
  return rows;
}

inline PackedTours packed_tours(const AttentionParams& p) {
  PackedTours tours;
  const auto bytes = static_cast<int64_t>(size_of(p.dtype));
  tours.rows = rows_of(p);
  tours.k = ByteRows(p.k, bytes);
  tours.v = ByteRows(p.v, bytes);
  tours.cu_q = p.cu_q;
  tours.cu_k = p.cu_k;
  tours.sequences = static_cast<int32_t>(p.sequences);
  tours.kv_heads = static_cast<int32_t>(p.kv_heads);
  tours.tile_rows = p.plan.tile_rows;
  tours.section = p.plan.section;
  tours.slots = sequence_tiles(p.query_rows, p.sequences, p.group(), p.plan.tile_rows);
  return tours;
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/attention/attention_few_rows.cuh"

#include "ops/attention/tile/few_rows.cuh"
#include "ops/attention/tile/merge.cuh"
#include "ops/attention/tile/problem.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

template <class T>
void run(const AttentionParams& p, NativeStream stream) {
  const Problem problem = problem_of(p);
  const PackedTours tours = packed_tours(p);
  const int64_t tiles = tours.slots * p.kv_heads;
  if (p.plan.dim_class > 128)
    launch_few_rows<FewRowsTile<T, 256, 1>>(problem, tours, tiles, stream);
  else if (p.plan.tile_rows == 8)
    launch_few_rows<FewRowsTile<T, 128, 1>>(problem, tours, tiles, stream);
  else
    launch_few_rows<FewRowsTile<T, 128, 2>>(problem, tours, tiles, stream);
}

// A row of no sequence has no partial results, and is not written.
template <class T>
void merge(const AttentionParams& p, NativeStream stream) {
  const IntervalRows rows = rows_of(p);
  MergeRows merge = split_rows(problem_of(p), p.query_rows, p.query_heads, rows.o, rows.lse, p.sink);
  merge.end = p.cu_q + p.sequences;
  launch_merge<float, T>(merge, stream);
}

}  // namespace

void attention_few_rows(const AttentionParams& p, NativeStream stream) {
  p.dtype == DType::f16 ? run<half_t>(p, stream) : run<bfloat16_t>(p, stream);
  attention_merge(p, stream);
}

void attention_merge(const AttentionParams& p, NativeStream stream) {
  if (!p.plan.partial) return;
  if (p.dtype == DType::f16)
    merge<half_t>(p, stream);
  else if (p.dtype == DType::bf16)
    merge<bfloat16_t>(p, stream);
  else
    merge<float>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

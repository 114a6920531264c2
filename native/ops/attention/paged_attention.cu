#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/few_rows.cuh"
#include "ops/attention/tile/half_tile.cuh"
#include "ops/attention/tile/merge.cuh"
#include "ops/attention/tile/problem.cuh"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

template <class T>
void run_tiles(const AttentionParams& p, const PagedTours& tours, int64_t tiles, NativeStream stream) {
  const Problem problem = problem_of(p);
  const bool wide = p.plan.dim_class > 128;
  if (p.plan.design == AttentionDesign::tile) {
    wide ? launch_half<HalfTile<T, 256>>(problem, tours, tiles, stream) : launch_half<HalfTile<T, 128>>(problem, tours, tiles, stream);
  } else if (p.plan.tile_rows == 8) {
    wide ? launch_few_rows<FewRowsTile<T, 256, 1>>(problem, tours, tiles, stream)
         : launch_few_rows<FewRowsTile<T, 128, 1>>(problem, tours, tiles, stream);
  } else {
    launch_few_rows<FewRowsTile<T, 128, 2>>(problem, tours, tiles, stream);
  }
}

template <class T>
void merge_splits(const AttentionParams& p, const PagedTours& tours, NativeStream stream) {
  merge_partial<T>(problem_of(p), p.query_rows, p.query_heads, tours.rows.o, tours.rows.lse, p.sink, stream);
}

}  // namespace

void paged_attention(const AttentionParams& p, NativeStream stream) {
  if (p.validate) validate(p.op, p, stream);
  if (p.query_rows == 0 || p.sequences == 0) return;
  PagedTours tours;
  const auto cache_bytes = static_cast<int64_t>(size_of(p.cache_dtype));
  tours.rows = rows_of(p);
  tours.k = ByteRows(p.k, cache_bytes);
  tours.v = ByteRows(p.v, cache_bytes);
  tours.page_table = p.page_table;
  tours.kv_len = p.kv_len;
  tours.k_scales = p.k_scale;
  tours.v_scales = p.v_scale;
  tours.table_stride = p.page_table_stride;
  tours.key_rows = p.key_rows;
  tours.page_size = static_cast<int32_t>(p.page_size);
  tours.kv_heads = static_cast<int32_t>(p.kv_heads);
  tours.queries = static_cast<int32_t>(p.query_rows);
  tours.tile_rows = p.plan.tile_rows;
  tours.row_tiles = static_cast<int32_t>((p.query_rows * p.group() + p.plan.tile_rows - 1) / p.plan.tile_rows);
  const int64_t tiles = p.sequences * p.kv_heads * tours.row_tiles;
  if (p.dtype == DType::f16)
    run_tiles<half_t>(p, tours, tiles, stream);
  else if (p.dtype == DType::bf16)
    run_tiles<bfloat16_t>(p, tours, tiles, stream);
  else
    launch_f32(problem_of(p), tours, tiles, stream);
  if (!p.plan.partial) return;
  if (p.dtype == DType::f16)
    merge_splits<half_t>(p, tours, stream);
  else if (p.dtype == DType::bf16)
    merge_splits<bfloat16_t>(p, tours, stream);
  else
    merge_splits<float>(p, tours, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

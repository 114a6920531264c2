#include "ops/attention/mla_attention.h"

#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/latent_tile.cuh"
#include "ops/attention/tile/merge.cuh"
#include "ops/attention/tile/problem.cuh"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

template <class T>
void run(const Problem& problem, const MlaParams& p, const LatentTours& tours, int64_t tiles, NativeStream stream) {
  if constexpr (sizeof(T) == 4)
    launch_f32<F32Tile<kLatentValueDim, 2, true>>(problem, tours, tiles, stream);
  else
    launch(latent_attention<T>, dim3(static_cast<unsigned>(tiles * problem.splits)), dim3(LatentTile<T>::kThreads), LatentTile<T>::kSharedBytes,
           stream, problem, tours);
  if (p.plan.partial) merge_partial<T>(problem, p.query_rows, p.query_heads, tours.rows.o, tours.rows.lse, p.sink, stream);
}

}  // namespace

void mla_attention(const MlaParams& p, NativeStream stream) {
  if (p.validate) validate(p.op, p, stream);
  if (p.query_rows == 0 || p.sequences == 0) return;
  Problem problem = problem_of(p);
  problem.f8 = p.cache_dtype == DType::u8;
  LatentTours tours{};
  tours.rows = rows_of(p);
  tours.cache = ByteRows(p.k, static_cast<int64_t>(size_of(p.cache_dtype)));
  tours.page_table = p.page_table;
  tours.kv_len = p.kv_len;
  tours.indices = p.indices;
  tours.topk_len = p.topk_len;
  tours.table_stride = p.page_table_stride;
  tours.key_rows = p.key_rows;
  tours.indices_batch = p.indices_batch;
  tours.indices_query = p.indices_query;
  tours.topk_len_batch = p.topk_len_batch;
  tours.page_size = static_cast<int32_t>(p.page_size);
  tours.queries = static_cast<int32_t>(p.query_rows);
  tours.tile_rows = p.plan.tile_rows;
  tours.bytes = problem.f8;
  tours.aligned = problem.aligned;
  const int64_t rows = p.indices ? p.query_heads : p.query_rows * p.query_heads;
  tours.row_tiles = static_cast<int32_t>((rows + p.plan.tile_rows - 1) / p.plan.tile_rows);
  const int64_t tiles = p.sequences * (p.indices ? p.query_rows : 1) * tours.row_tiles;
  if (p.dtype == DType::f16)
    run<half_t>(problem, p, tours, tiles, stream);
  else if (p.dtype == DType::bf16)
    run<bfloat16_t>(problem, p, tours, tiles, stream);
  else
    run<float>(problem, p, tours, tiles, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/attention/mla_attention.h"

#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/latent_tile.cuh"
#include "ops/attention/tile/merge.cuh"
#include "ops/attention/tile/problem.cuh"
#include "ops/attention/validate.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

#if !CUL_EMULATED
// A trap is the only way a kernel can fail its device.
//
// Computes: nothing; traps where topk_len or an index leads outside
// Shapes:   indices i32 [B,Sq,topk], topk_len i32 [B,Sq]
// Layouts:  rows by their strides
// Tiles:    one block, a thread a query
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of the indices; a debug check
// Source:   ours
__global__ void validate_indices_kernel(MlaParams p) {
  for (int64_t i = threadIdx.x; i < p.sequences * p.query_rows; i += blockDim.x) {
    const int64_t b = i / p.query_rows, s = i % p.query_rows;
    const int64_t entries = p.topk_len ? p.topk_len[b * p.topk_len_batch + s] : p.topk;
    if (entries < 0 || entries > p.topk) __trap();
    for (int64_t j = 0; j < entries; ++j) {
      const int index = p.indices[b * p.indices_batch + s * p.indices_query + j];
      if (index < -1 || index >= p.pages * p.page_size) __trap();
    }
  }
}
#endif

void validate_tokens(const MlaParams& p, NativeStream stream) {
  if (!p.indices || !p.validate) return validate(p, stream);
#if CUL_EMULATED
  stream->enqueue([p] { p.require_valid(); });
#else
  launch(validate_indices_kernel, dim3(1), dim3(256), 0, stream, p);
#endif
}

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
  validate_tokens(p, stream);
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

#include "ops/attention/attention_hopper.cuh"
#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/half_tile.cuh"
#include "ops/attention/tile/problem.cuh"
#include "ops/attention/validate.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

template <class T>
void run_tiles(const AttentionParams& p, const PackedTours& tours, NativeStream stream) {
  const Problem problem = problem_of(p);
  const int64_t tiles = tours.slots * p.kv_heads;
  if (p.plan.dim_class == 64)
    launch_half<HalfTile<T, 64>>(problem, tours, tiles, stream);
  else if (p.plan.dim_class == 128)
    launch_half<HalfTile<T, 128>>(problem, tours, tiles, stream);
  else
    launch_half<HalfTile<T, 256>>(problem, tours, tiles, stream);
}

}  // namespace

void attention(const AttentionParams& p, NativeStream stream) {
  validate(p, stream);
  if (p.query_rows == 0 || p.sequences == 0) return;
  if (p.plan.design == AttentionDesign::hopper) return attention_hopper(p, stream);
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
  if (p.dtype == DType::f16) return run_tiles<half_t>(p, tours, stream);
  if (p.dtype == DType::bf16) return run_tiles<bfloat16_t>(p, tours, stream);
  launch_f32(problem_of(p), tours, tours.slots * p.kv_heads, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/attention/attention_few_rows.cuh"
#include "ops/attention/attention_hopper.cuh"
#include "ops/attention/tile/f32_tile.cuh"
#include "ops/attention/tile/half_tile.cuh"
#include "ops/attention/tile/problem.cuh"
#include "device/validate.h"

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
  if (p.validate) validate(p.op, p, stream);
  if (p.query_rows == 0 || p.sequences == 0) return;
  if (p.plan.design == AttentionDesign::hopper) return attention_hopper(p, stream);
  if (p.plan.design == AttentionDesign::few_rows) return attention_few_rows(p, stream);
  const PackedTours tours = packed_tours(p);
  if (p.dtype == DType::f16)
    run_tiles<half_t>(p, tours, stream);
  else if (p.dtype == DType::bf16)
    run_tiles<bfloat16_t>(p, tours, stream);
  else
    launch_f32(problem_of(p), tours, tours.slots * p.kv_heads, stream);
  attention_merge(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

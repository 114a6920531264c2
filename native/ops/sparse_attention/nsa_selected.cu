#include "ops/attention/tile/few_rows.cuh"
#include "device/validate.h"
#include "ops/sparse_attention/nsa_kv_order.cuh"
#include "ops/sparse_attention/nsa_tours.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

template <class T>
void run_half(const Problem& problem, const NsaSelectedTours& tours, int64_t tiles, NativeStream stream) {
  const bool wide = problem.dim > 128 || problem.value_dim > 128;
  if (tours.tile_rows == 64)
    launch_half_tours<T>(problem, tours, tiles, stream);
  else
    wide ? launch_few_rows<FewRowsTile<T, 256, 1>>(problem, tours, tiles, stream)
         : launch_few_rows<FewRowsTile<T, 128, 2>>(problem, tours, tiles, stream);
}

}  // namespace

void nsa_selected_step(const NsaParams& p, NsaPartial partial, char* workspace, NativeStream stream) {
  if (p.query_rows == 0 || p.sequences == 0) return;
  if (p.selected.by_blocks) return nsa_selected_by_blocks(p, partial, workspace, stream);
  NsaSelectedTours tours;
  tours.rows = NsaRows(p, p.k, p.v);
  tours.cu_q = p.cu_q;
  tours.cu_k = p.cu_k;
  tours.idx = p.idx;
  tours.idx_head = p.idx_head;
  tours.idx_row = p.idx_row;
  tours.sequences = static_cast<int32_t>(p.sequences);
  tours.kv_heads = static_cast<int32_t>(p.kv_heads);
  // f32 has tiles of 16; of halves up to 16 heads go to the loop for few rows, 8 where it has 256 channels.
  const bool wide = p.dim > 128 || p.value_dim > 128;
  tours.tile_rows = p.dtype == DType::f32 ? 16 : p.group() > 16 ? 64 : wide ? 8 : 16;
  tours.parts = static_cast<int32_t>((p.group() + tours.tile_rows - 1) / tours.tile_rows);
  tours.entries = static_cast<int32_t>(p.topk);
  tours.block = static_cast<int32_t>(p.block);
  Problem problem = sparse_problem(p);
  problem.partial_o = partial.o;
  problem.partial_lse = partial.lse;
  problem.partial_rows = p.query_rows * p.query_heads;
  const int64_t tiles = p.query_rows * p.kv_heads * tours.parts;
  if (p.dtype == DType::f16)
    run_half<half_t>(problem, tours, tiles, stream);
  else if (p.dtype == DType::bf16)
    run_half<bfloat16_t>(problem, tours, tiles, stream);
  else
    launch_f32(problem, tours, tiles, stream);
}

void nsa_selected_attention(const NsaParams& p, NativeStream stream) {
  if (p.validate) validate(p.op, p, stream);
  nsa_selected_step(p, {}, static_cast<char*>(p.workspace), stream);
}

}  // namespace culebra::CUL_DEVICE_NS

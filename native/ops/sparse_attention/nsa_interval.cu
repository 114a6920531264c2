#include "ops/sparse_attention/nsa.cuh"
#include "device/validate.h"
#include "ops/sparse_attention/nsa_tours.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

void run(const NsaParams& p, const TokenRows& k, const TokenRows& v, const int32_t* cu_keys, int64_t l, int64_t window, NsaPartial partial,
         NativeStream stream) {
  if (p.query_rows == 0 || p.sequences == 0) return;
  NsaIntervalTours tours;
  tours.rows = NsaRows(p, k, v);
  tours.cu_q = p.cu_q;
  tours.cu_k = p.cu_k;
  tours.cu_keys = cu_keys;
  tours.sequences = static_cast<int32_t>(p.sequences);
  tours.kv_heads = static_cast<int32_t>(p.kv_heads);
  tours.tile_rows = tile_rows(p.dtype);
  tours.l = static_cast<int32_t>(l);
  tours.d = static_cast<int32_t>(p.d);
  tours.window = static_cast<int32_t>(window);
  tours.slots = sequence_tiles(p.query_rows, p.sequences, p.group(), tours.tile_rows);
  Problem problem = sparse_problem(p);
  problem.partial_o = partial.o;
  problem.partial_lse = partial.lse;
  problem.partial_rows = p.query_rows * p.query_heads;
  launch_tours(p.dtype, problem, tours, tours.slots * p.kv_heads, stream);
}

}  // namespace

void nsa_compressed_step(const NsaParams& p, NsaPartial partial, NativeStream stream) {
  run(p, p.k_cmp, p.v_cmp, p.cu_cmp, p.l, 0, partial, stream);
}
void nsa_window_step(const NsaParams& p, NsaPartial partial, NativeStream stream) {
  run(p, p.k, p.v, p.cu_k, 0, p.window, partial, stream);
}

void nsa_compressed_attention(const NsaParams& p, NativeStream stream) {
  if (p.validate) validate(p.op, p, stream);
  nsa_compressed_step(p, {}, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/attention/attention_hopper.cuh"

#include "ops/attention/hopper/hopper_attention.cuh"
#include "ops/attention/tile/problem.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

TensorMap head_map(const AttentionParams::Rows& x, int64_t tokens, int64_t heads, int64_t dim, int tile_tokens) {
  // One head or token has no stride.
  const int64_t head = heads > 1 ? x.head : (dim + 7) / 8 * 8, row = tokens > 1 ? x.row : head * heads;
  return make_tensor_map({x.data, 2, 3, {dim, heads, tokens}, {2 * head, 2 * row}, {64, 1, tile_tokens}, Swizzle::bytes_128});
}

template <class Tile>
void run(const AttentionParams& p, NativeStream stream) {
  HopperAttention<HopperDenseTours> problem{};
  problem.q = head_map(p.q, p.query_rows, p.query_heads, p.dim, Tile::kGroupRows);
  problem.k = head_map(p.k, p.key_rows, p.kv_heads, p.dim, Tile::kKeys);
  problem.v = head_map(p.v, p.key_rows, p.kv_heads, p.value_dim, Tile::kKeys);
  HopperDenseTours& tours = problem.tours;
  tours.rows = rows_of(p);
  tours.rows.group = 1;
  tours.cu_q = p.cu_q;
  tours.cu_k = p.cu_k;
  tours.sequences = static_cast<int32_t>(p.sequences);
  tours.query_heads = static_cast<int32_t>(p.query_heads);
  tours.group = static_cast<int32_t>(p.group());
  tours.section = p.plan.section * tours.group;
  tours.slots = sequence_tiles(p.query_rows, p.sequences, 1, Tile::kRows);
  problem.o = tours.rows.o;
  problem.lse = tours.rows.lse;
  problem.sinks = tours.rows.sinks;
  problem.value_dim = static_cast<int32_t>(p.value_dim);
  problem.set_scores(p.scale, p.softcap);
  launch_hopper_attention<Tile>(problem, tours.slots * p.query_heads, stream);
}

template <class T>
void run_type(const AttentionParams& p, NativeStream stream) {
  if (p.plan.dim_class == 64)
    run<HopperAttentionTile<T, 64>>(p, stream);
  else if (p.plan.dim_class == 128)
    run<HopperAttentionTile<T, 128>>(p, stream);
  else
    run<HopperAttentionTile<T, 256>>(p, stream);
}

}  // namespace

void attention_hopper(const AttentionParams& p, NativeStream stream) {
  p.dtype == DType::f16 ? run_type<half_t>(p, stream) : run_type<bfloat16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

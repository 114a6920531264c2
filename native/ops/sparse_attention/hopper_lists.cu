#include "ops/sparse_attention/hopper_lists.cuh"

#include <algorithm>
#include <bit>

#include "ops/attention/hopper/hopper_attention.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

TensorMap list_map(const TokenRows& x, int64_t tokens, int64_t heads, int64_t dim, int box_tokens) {
  // One head or token has no stride.
  const int64_t head = heads > 1 ? x.head : (dim + 7) / 8 * 8, row = tokens > 1 ? x.row : head * heads;
  return make_tensor_map({x.data, 2, 3, {dim, heads, tokens}, {2 * head, 2 * row}, {64, 1, box_tokens}, Swizzle::bytes_128});
}
ByteRows list_rows(const TokenRows& x, int64_t element_bytes) {
  ByteRows rows;
  rows.data = static_cast<char*>(x.data);
  rows.row = x.row * element_bytes;
  rows.head = x.head * element_bytes;
  return rows;
}

template <class Tile>
void run(const HopperListCall& call, NativeStream stream) {
  HopperAttention<HopperListTours> problem{};
  HopperListTours& tours = problem.tours;
  tours = call.tours;
  const int units = tours.shared * ((tours.block_q + kHopperRows - 1) / kHopperRows);
  tours.parts = (units + Tile::kGroups - 1) / Tile::kGroups;
  tours.shift = std::countr_zero(static_cast<uint32_t>(call.block_k));
  tours.box = static_cast<int32_t>(std::min<int64_t>(call.block_k, Tile::kKeys));
  tours.outside = static_cast<int32_t>(call.key_rows);
  problem.q = list_map(call.q, call.query_rows, call.query_heads, call.dim, Tile::kGroupRows);
  problem.k = list_map(call.k, call.key_rows, call.kv_heads, call.dim, tours.box);
  problem.v = list_map(call.v, call.key_rows, call.kv_heads, call.value_dim, tours.box);
  problem.o = list_rows(call.o, 2);
  problem.lse = list_rows(call.lse, sizeof(float));
  problem.value_dim = static_cast<int32_t>(call.value_dim);
  problem.set_scores(call.scale, 0);
  launch_hopper_attention<Tile>(problem, tours.slots * (call.query_heads / tours.shared) * tours.parts, stream);
}

template <class T>
void run_type(const HopperListCall& call, NativeStream stream) {
  const bool pair = call.tours.shared > 1 || call.tours.block_q > kHopperRows, narrow = std::max(call.dim, call.value_dim) <= 64;
  if (pair)
    narrow ? run<HopperAttentionTile<T, 64, 2>>(call, stream) : run<HopperAttentionTile<T, 128, 2>>(call, stream);
  else
    narrow ? run<HopperAttentionTile<T, 64, 1>>(call, stream) : run<HopperAttentionTile<T, 128, 1>>(call, stream);
}

}  // namespace

HopperListCall hopper_list_call(const PackedHeads& p, int64_t block_q, int64_t block_k, int64_t shared) {
  HopperListCall call{};
  call.dtype = p.dtype;
  call.q = p.q, call.k = p.k, call.v = p.v, call.o = p.o, call.lse = p.lse;
  call.query_rows = p.query_rows, call.key_rows = p.key_rows, call.query_heads = p.query_heads, call.kv_heads = p.kv_heads;
  call.dim = p.dim, call.value_dim = p.value_dim, call.block_k = block_k;
  call.scale = p.scale;
  call.tours.cu_q = p.cu_q, call.tours.cu_k = p.cu_k;
  call.tours.sequences = static_cast<int32_t>(p.sequences);
  call.tours.query_heads = static_cast<int32_t>(p.query_heads);
  call.tours.group = static_cast<int32_t>(p.group());
  call.tours.shared = static_cast<int32_t>(shared);
  call.tours.block_q = static_cast<int32_t>(block_q);
  call.tours.slots = sequence_tiles(p.query_rows, p.sequences, 1, block_q);
  return call;
}

void hopper_list_attention(const HopperListCall& call, NativeStream stream) {
  if (call.tours.slots == 0) return;
  call.dtype == DType::f16 ? run_type<half_t>(call, stream) : run_type<bfloat16_t>(call, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

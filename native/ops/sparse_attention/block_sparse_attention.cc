#include "ops/sparse_attention/block_sparse_attention.h"

#include "ops/sparse_attention/hopper_lists.h"

namespace culebra {
namespace {

constexpr const char* kOp = "block_sparse_attention";
}  // namespace

BlockSparseParams check_block_sparse_attention(const Call& call, const cul_block_sparse_attention_args& args) {
  const View q = call.required(args.q, "q"), k = call.required(args.k, "k"), v = call.required(args.v, "v");
  const View cu_q = call.required(args.cu_q, "cu_q"), cu_k = call.required(args.cu_k, "cu_k");
  const View row_ptr = call.required(args.row_ptr, "row_ptr"), col = call.required(args.col, "col");
  const View o = call.required(args.o, "o"), lse = call.optional(args.lse, "lse");
  BlockSparseParams p;
  static_cast<PackedHeads&>(p) = check_packed(call, q, k, v, cu_q, cu_k, o, lse, args.scale);
  call.rank(row_ptr, 1, "[B*Hm*Mb+1]");
  call.dtype(row_ptr, {DType::i64});
  call.rank(col, 1, "[nnz]");
  call.dtype(col, {DType::i32});
  for (const auto& [block, name] : {std::pair{args.block_q, "block_q"}, std::pair{args.block_k, "block_k"}})
    if (block < 16 || block > 128) call.refuse(CUL_RANGE, "%s is %d; it must be 16 to 128", name, block);
  if (args.head_map != 1 && args.head_map != p.kv_heads && args.head_map != p.query_heads)
    call.refuse(CUL_RANGE, "head_map is %d; it must be 1, Hkv = %lld or Hq = %lld", args.head_map, ll(p.kv_heads),
                ll(p.query_heads));
  call.flag(args.causal, "causal");

  const int64_t rows = row_ptr[0] - 1, heads = p.sequences * args.head_map;
  if (rows < 0 || (heads == 0 ? rows != 0 : rows % heads != 0))
    call.refuse(CUL_SHAPE, "row_ptr is %s; it must be [B*Hm*Mb+1], B = %lld sequences of Hm = %d mask heads",
                shape_text(row_ptr).c_str(), ll(p.sequences), args.head_map);
  p.mask_rows = heads ? rows / heads : 0;
  if (p.sequences * p.mask_rows * args.block_q < p.query_rows)
    call.refuse(CUL_SHAPE, "row_ptr is %s: %lld blocks of %d queries in each of %lld sequences, but q is %s",
                shape_text(row_ptr).c_str(), ll(p.mask_rows), args.block_q, ll(p.sequences), shape_text(q).c_str());
  check_outputs(call, {&o, &lse}, {&q, &k, &v, &cu_q, &cu_k, &row_ptr, &col});

  p.row_ptr = row_ptr.as<const int64_t>();
  p.col = col.as<const int32_t>();
  p.col_count = col[0];
  p.block_q = args.block_q;
  p.block_k = args.block_k;
  p.mask_heads = args.head_map;
  p.causal = args.causal;
  const char* const obstacle = not_hopper_lists(list_shape(p, p.block_q, p.block_k), call.caps());
  p.hopper = !obstacle;
  if (call.plan_only() && call.caps().backend != CUL_BACKEND_CPU)
    call.explain(p.hopper                ? std::string("wgmma and the copy engine over the listed blocks")
                 : p.dtype == DType::f32 ? std::string("FMAs (f32 uses no TF32)")
                                         : format("mma.sync and cp.async (%s)", obstacle));
  return p;
}

std::string BlockSparseParams::invalid_text(int64_t b) const {
  if (!valid_starts(cu_q, b, query_rows)) return starts_text("cu_q", cu_q, b, query_rows);
  if (!valid_starts(cu_k, b, key_rows)) return starts_text("cu_k", cu_k, b, key_rows);
  const int64_t queries = cu_q[b + 1] - cu_q[b], blocks = (cu_k[b + 1] - cu_k[b] + block_k - 1) / block_k;
  if (mask_rows * block_q < queries)
    return format("sequence %lld has %lld queries, but row_ptr has %lld rows of %lld for it", ll(b), ll(queries), ll(mask_rows), ll(block_q));
  int64_t i = b * mask_heads * mask_rows;
  while (row_valid(i, blocks)) ++i;
  if (row_ptr[i] < 0 || row_ptr[i + 1] < row_ptr[i] || row_ptr[i + 1] > col_count)
    return format("row_ptr[%lld] = %lld after %lld; it must never fall, and stay within the %lld entries of col", ll(i + 1),
                  ll(row_ptr[i + 1]), ll(row_ptr[i]), ll(col_count));
  return format("the entries of col in row %lld, from %lld to %lld, must ascend within the sequence's %lld key blocks, -1 at the end", ll(i),
                ll(row_ptr[i]), ll(row_ptr[i + 1]), ll(blocks));
}

}  // namespace culebra

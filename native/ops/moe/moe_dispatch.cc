#include "ops/moe/moe_dispatch.h"

#include "backends/backend.h"
#include "ops/glue/rows.h"

namespace culebra {

MoeDispatchParams check_moe_dispatch(const Call& call, const cul_moe_dispatch_args& args) {
  const View x = call.required(args.x, "x"), ids = call.required(args.ids, "ids"),
             expert_rank = call.required(args.expert_rank, "expert_rank"), expert_local = call.required(args.expert_local, "expert_local");
  const View rows = call.required(args.rows, "rows"), row_ids = call.required(args.row_ids, "row_ids"),
             inverse = call.required(args.inverse, "inverse"), counts = call.required(args.counts, "counts");
  call.rank(x, 2, "[T,D]");
  call.dtype(x, {DType::f32, DType::f16, DType::bf16, DType::f8e4m3});
  for (const View* v : {&ids, &expert_rank, &expert_local, &row_ids, &inverse, &counts}) call.dtype(*v, {DType::i32});
  call.same_dtype(rows, x);
  call.shape(ids, {x[0], -1}, "[T,k]");
  call.rank(expert_rank, 1, "[experts]");
  if (expert_rank[0] < 1 || expert_rank[0] > INT32_MAX)
    call.refuse(CUL_SHAPE, "expert_rank is %s; it must be [experts], of one or more", shape_text(expert_rank).c_str());
  call.shape(expert_local, {expert_rank[0]}, "[experts]");
  call.rank(counts, 1, "[ranks]");
  const int64_t ranks = counts[0];
  if (ranks < 1 || ranks > 4096) call.refuse(CUL_SHAPE, "counts is %s; it must be [ranks], of 1 to 4096", shape_text(counts).c_str());
  call.rank(row_ids, 1, "[ranks capacity]");
  if (row_ids[0] % ranks || row_ids[0] > INT32_MAX)
    call.refuse(CUL_SHAPE, "row_ids is %s; it must be [ranks capacity] with ranks = %lld, below 2^31", shape_text(row_ids).c_str(),
                static_cast<long long>(ranks));
  call.shape(rows, {row_ids[0], x[1]}, "[ranks capacity, D]");
  constexpr int32_t kBlock = 8;  // of the padded order, which nobody reads
  const int64_t k = ids[1], limit = INT32_MAX - ranks * kBlock;
  if (k > 0 && x[0] > limit / k) call.refuse(CUL_UNSUPPORTED, "ids is %s: at most 2^31 slots less 8 a rank", shape_text(ids).c_str());
  const int64_t slots = x[0] * k;
  call.shape(inverse, {slots}, "[T k]");
  call.distinct(rows);
  const View* const outs[] = {&rows, &row_ids, &inverse, &counts};
  for (const View* out : outs) {
    for (const View* in : {&x, &ids, &expert_rank, &expert_local}) call.disjoint(*out, *in);
    for (const View* other : outs)
      if (other < out) call.disjoint(*out, *other);
  }

  MoeDispatchParams p;
  p.expert_local = expert_local.as<const int32_t>();
  p.row_ids = row_ids.as<int32_t>();
  p.counts = counts.as<int32_t>();
  p.capacity = row_ids[0] / ranks;
  p.validate = call.validate();

  MoeAlignParams& a = p.align;
  a.ids = ids.as<const int32_t>();
  a.ids_stride = ids.stride_of(0);
  a.expert_map = expert_rank.as<const int32_t>();
  a.inverse = inverse.as<int32_t>();
  a.tokens = x[0];
  a.k = k;
  a.experts = static_cast<int32_t>(expert_rank[0]);
  a.local_experts = static_cast<int32_t>(ranks);
  a.block = kBlock;
  a.blocks = (slots + ranks * (kBlock - 1) + kBlock - 1) / kBlock;
  a.capacity = a.blocks * kBlock;
  divide_slots(a, call.caps().backend == CUL_BACKEND_CPU);
  // offsets first: 64 bits, at the workspace's start
  const int64_t ints[] = {2 * (ranks + 1), a.capacity, a.blocks, 1};
  int64_t total = 0;
  for (const int64_t n : ints) total += n;
  const uint64_t bytes = 4 * static_cast<uint64_t>(total) + a.workspace_bytes();
  if (auto* at = static_cast<int32_t*>(call.workspace(bytes))) {
    a.offsets = reinterpret_cast<int64_t*>(at);
    a.sorted = at + ints[0];
    a.block_expert = a.sorted + ints[1];
    a.n_padded = a.block_expert + ints[2];
    a.workspace = a.n_padded + ints[3];
  }

  MoePermuteParams& m = p.permute;
  m.element_bytes = static_cast<int>(size_of(x.dtype));
  m.aligned = glue::aligned_rows({&x, &rows}) && x[1] * m.element_bytes % 16 == 0;
  m.x = x.data;
  m.x_stride = x.stride_of(0);
  m.inverse = a.inverse;
  m.rows = rows.data;
  m.rows_stride = rows.stride_of(0);
  m.row_count = rows[0];
  m.tokens = x[0];
  m.width = x[1];
  m.k = k;
  return p;
}

std::string MoeDispatchParams::invalid_text(int64_t i) const {
  if (i < align.slots()) return align.invalid_text(i);
  const int64_t e = i - align.slots();
  return format("expert_rank[%lld] = %d; it must be -1 or below the %d ranks", static_cast<long long>(e), align.expert_map[e],
                align.local_experts);
}

}  // namespace culebra

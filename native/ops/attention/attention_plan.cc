// Which kernel, which tiles, how many splits: pure functions of the call's shapes and the device.
#include <algorithm>

#include "backends/backend.h"
#include "ops/attention/mla_attention.h"

namespace culebra {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int32_t dim_class(const AttentionParams& p) {
  const int64_t dim = std::max(p.dim, p.value_dim);
  return dim <= 64 ? 64 : dim <= 128 ? 128 : 256;
}

// A split is worth its partial results where the blocks would not fill the device otherwise. With split_kv_tokens, or batch invariance, what a
// row's sums are made of depends on its own length alone: splits of fixed size, always through the workspace.
constexpr int64_t kLeastKeys = 256;
void plan_splits(const AttentionParams& p, int64_t capacity, int64_t blocks, int64_t wanted_blocks, AttentionPlan& plan) {
  constexpr int64_t kUnit = 64, kInvariantKeys = 1024, kMostSplits = 64;
  const int64_t fixed = p.split_kv_tokens ? p.split_kv_tokens : p.batch_invariant ? kInvariantKeys : 0;
  if (fixed) {
    plan.split_keys = static_cast<int32_t>(std::min(ceil_div(fixed, kUnit) * kUnit, int64_t{1} << 30));
    plan.splits = static_cast<int32_t>(std::max<int64_t>(ceil_div(capacity, plan.split_keys), 1));
    plan.partial = true;
  } else if (blocks > 0) {
    plan.splits = static_cast<int32_t>(std::clamp<int64_t>(std::min(wanted_blocks / blocks, capacity / kLeastKeys), 1, kMostSplits));
    plan.partial = plan.splits > 1;
  }
  const int64_t rows = (p.cu_q ? 1 : p.sequences) * p.query_rows * p.query_heads;
  if (plan.partial) plan.workspace_bytes = static_cast<uint64_t>(plan.splits * rows * (p.value_dim + 1)) * sizeof(float);
}

constexpr int64_t kFewRows = 16;  // of a KV head: what the loop with keys on the M side takes at once
int32_t few_tile_rows(int64_t rows, int32_t dim_class) { return rows <= 8 || dim_class > 128 ? 8 : 16; }

std::string splits_text(const AttentionPlan& plan) {
  if (!plan.partial) return "keys not split";
  return format("keys in %d splits", plan.splits) +
         (plan.split_keys ? format(" of %d, whatever the batch is", plan.split_keys) : std::string(" to fill the device"));
}

}  // namespace

// Why a call is not for the kernel of compute capability 9.0; null where it is.
const char* not_hopper(const AttentionParams& p, const DeviceCaps& caps) {
  if (caps.compute_major != 9) return "compute capability below 9.0, or above";
  if (!p.aligned) return "rows are not aligned to 16 bytes";
  if (p.scale <= 0) return "scale is not positive";
  if (p.key_rows == 0) return "no keys";
  // Copies of the engine step over positive strides.
  for (const AttentionParams::Rows* x : {&p.q, &p.k, &p.v})
    if (x->row <= 0 || x->head <= 0) return "a stride is not positive";
  // Its tiles are 128 queries of one head; the other design's are 64 rows of all heads of a group.
  const int64_t queries = p.query_rows / std::max<int64_t>(p.sequences, 1);
  if (p.batch_invariant) return nullptr;
  if (queries * p.group() < 64) return "few queries a sequence";
  // It does not split keys. Where it would leave more than half of the device idle, the slower loop's splits win.
  const int64_t keys = p.key_rows / std::max<int64_t>(p.sequences, 1);
  if (2 * p.sequences * ceil_div(queries, 128) * p.query_heads <= caps.multiprocessors && keys >= 4 * kLeastKeys)
    return "few blocks of queries, many keys";
  return nullptr;
}

AttentionPlan plan_attention(const AttentionParams& p, const DeviceCaps& caps, std::string* reason) {
  AttentionPlan plan;
  plan.dim_class = dim_class(p);
  const bool f32 = p.dtype == DType::f32;
  const char* const obstacle = f32 ? "f32" : not_hopper(p, caps);
  // Sequences' own lengths are the device's: what follows is about a mean one. A batch must not change a sequence's bits where that is asked for:
  // one design then, and keys in one piece.
  const int64_t sequences = std::max<int64_t>(p.sequences, 1), rows = ceil_div(p.query_rows * p.group(), sequences);
  const bool few = !f32 && obstacle && !p.batch_invariant && rows <= kFewRows;
  plan.design = f32 ? AttentionDesign::f32 : few ? AttentionDesign::few_rows : obstacle ? AttentionDesign::tile : AttentionDesign::hopper;
  if (few) plan.dim_class = std::max(plan.dim_class, 128);
  plan.tile_rows = f32 ? 16 : few ? few_tile_rows(rows, plan.dim_class) : obstacle ? 64 : 128;
  if (plan.design != AttentionDesign::hopper && !p.batch_invariant)
    plan_splits(p, p.key_rows / sequences, sequences * p.kv_heads * ceil_div(rows, plan.tile_rows), caps.multiprocessors * (few ? 3 : 2), plan);
  // Two thirds of L2 for the keys and values of the heads that are worked on at the same time.
  const int64_t head_bytes = p.key_rows * (p.dim + p.value_dim) * static_cast<int64_t>(size_of(p.dtype));
  const int64_t fit = static_cast<int64_t>(caps.l2_bytes) * 2 / 3 / std::max<int64_t>(head_bytes, 1);
  plan.section = static_cast<int32_t>(std::clamp<int64_t>(fit, 1, p.kv_heads));
  *reason = f32        ? std::string("FMAs (f32 uses no TF32)")
            : few      ? std::string("mma.sync with keys on the M side (few queries a sequence)")
            : obstacle ? format("mma.sync and cp.async (%s)", obstacle)
                       : std::string("wgmma and the copy engine");
  *reason += format("; tiles of %d %s; %d of %lld KV heads at a time", plan.tile_rows, obstacle ? "rows (query, head of the group)" : "queries",
                    plan.section, static_cast<long long>(p.kv_heads));
  if (plan.design != AttentionDesign::hopper) *reason += "; " + splits_text(plan);
  return plan;
}

AttentionPlan plan_paged_attention(const AttentionParams& p, const DeviceCaps& caps, std::string* reason) {
  AttentionPlan plan;
  const int64_t rows = p.query_rows * p.group();
  const bool f32 = p.dtype == DType::f32, few = rows <= kFewRows;
  plan.dim_class = std::max(dim_class(p), 128);  // few_rows has none for 64, and 64 columns more cost the tile loop nothing but registers
  plan.design = f32 ? AttentionDesign::f32 : few ? AttentionDesign::few_rows : AttentionDesign::tile;
  plan.tile_rows = f32 ? 16 : few ? few_tile_rows(rows, plan.dim_class) : 64;
  plan_splits(p, p.key_rows, p.sequences * p.kv_heads * ceil_div(rows, plan.tile_rows), caps.multiprocessors * 3, plan);
  *reason = format("%s; %lld rows a KV head in tiles of %d; ",
                   f32   ? "FMAs (f32 uses no TF32)"
                   : few ? "mma.sync with keys on the M side"
                         : "mma.sync and cp.async",
                   static_cast<long long>(rows), plan.tile_rows);
  *reason += splits_text(plan);
  return plan;
}

AttentionPlan plan_mla_attention(const MlaParams& p, const DeviceCaps& caps, std::string* reason) {
  AttentionPlan plan;
  const bool f32 = p.dtype == DType::f32;
  plan.design = f32 ? AttentionDesign::f32 : AttentionDesign::tile;
  plan.tile_rows = f32 ? 8 : 16;
  // Listed tokens belong to one query; pages are shared by all queries of a sequence.
  const int64_t tiles = p.indices ? p.query_rows * ceil_div(p.query_heads, plan.tile_rows) : ceil_div(p.query_rows * p.query_heads, plan.tile_rows);
  plan_splits(p, p.key_rows, p.sequences * tiles, caps.multiprocessors * 2, plan);
  *reason = format("%s; %lld heads in tiles of %d rows over %s; ", f32 ? "FMAs (f32 uses no TF32)" : "mma.sync and cp.async",
                   static_cast<long long>(p.query_heads), plan.tile_rows, p.indices ? "listed tokens" : "pages");
  *reason += splits_text(plan);
  return plan;
}

}  // namespace culebra

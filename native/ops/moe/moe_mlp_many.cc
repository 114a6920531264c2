#include "ops/moe/moe_mlp_many.h"

#include "backends/backend.h"
#include "ops/gemm/tile/tile_plan.h"
#include "ops/moe/moe_mlp.h"

namespace culebra {
namespace {

using tile_plan::align256;
using tile_plan::ceil_div;

// What a product has whatever its matrices are.
GroupedGemmParams product(const MoeMlpParams& p, const ExpertMatrices& b, const void* bias, int64_t bias_stride, int64_t slots) {
  GroupedGemmParams g;
  g.dtype = g.out_dtype = g.bias_dtype = p.dtype;
  g.b = b;
  g.bias = bias;
  g.bias_stride = bias_stride;
  g.rows = slots;
  g.batch_invariant = p.batch_invariant;
  return g;
}

GroupedAct act_of(int32_t act) {
  return act == CUL_MOE_ACT_SILU ? GroupedAct::silu_mul : act == CUL_MOE_ACT_GELU ? GroupedAct::gelu_mul : GroupedAct::swiglu_oai;
}

}  // namespace

MoeMlpMany plan_moe_mlp_many(const MoeMlpParams& p, const DeviceCaps& caps, void* workspace, std::string* reason) {
  const int64_t slots = p.tokens * p.slots_per_token, hidden_pitch = ceil_div(p.expert_width, 8) * 8, row_pitch = ceil_div(p.width, 8) * 8;
  MoeMlpMany m;
  m.any_slots = slots > 0 && p.experts > 0 && p.width > 0;
  const auto take = [&](int64_t bytes) {
    void* const at = static_cast<char*>(workspace) + m.workspace_bytes;
    m.workspace_bytes += align256(bytes);
    return workspace ? at : nullptr;
  };

  m.combine.dtype = p.dtype;
  m.combine.aligned = p.y_stride % 8 == 0 || p.tokens <= 1;
  m.combine.rows_stride = row_pitch;
  m.combine.weights = p.weights;
  m.combine.weights_stride = p.weights_stride;
  m.combine.y = p.y;
  m.combine.y_stride = p.y_stride;
  m.combine.tokens = p.tokens;
  m.combine.width = p.width;
  if (!m.any_slots) {
    *reason = "no slots: y is zeros";
    return m;
  }
  m.combine.k = p.slots_per_token;

  constexpr int32_t kBlock = 8;  // of the padded order, which nobody reads
  MoeAlignParams& a = m.align;
  a.ids = p.ids;
  a.ids_stride = p.ids_stride;
  a.tokens = p.tokens;
  a.k = p.slots_per_token;
  a.experts = a.local_experts = static_cast<int32_t>(p.experts);
  a.block = kBlock;
  a.blocks = ceil_div(slots + p.experts * (kBlock - 1), kBlock);
  a.capacity = a.blocks * kBlock;
  a.validate = p.validate;
  divide_slots(a, false);
  a.sorted = static_cast<int32_t*>(take(4 * a.capacity));
  a.block_expert = static_cast<int32_t*>(take(4 * a.blocks));
  a.offsets = static_cast<int64_t*>(take(8 * (p.experts + 1)));
  a.inverse = static_cast<int32_t*>(take(4 * slots));
  a.n_padded = static_cast<int32_t*>(take(4));
  a.workspace = static_cast<int32_t*>(take(static_cast<int64_t>(a.workspace_bytes())));
  m.gather = static_cast<int32_t*>(take(4 * slots));
  void* const hidden = take(2 * slots * hidden_pitch);
  void* const rows = take(2 * slots * row_pitch);

  m.up = product(p, p.w13, p.b13, p.b13_stride, slots);
  m.up.a = p.x;
  m.up.lda = p.x_stride;
  m.up.a_rows = p.tokens;
  m.up.offsets = a.offsets;
  m.up.gather = m.gather;
  m.up.c = hidden;
  m.up.ldc = hidden_pitch;
  m.up.act = act_of(p.act);
  m.up.alpha = p.alpha;
  m.up.limit = p.limit;
  m.down = product(p, p.w2, p.b2, p.b2_stride, slots);
  m.down.a = hidden;
  m.down.lda = hidden_pitch;
  m.down.a_rows = slots;
  m.down.offsets = a.offsets;
  m.down.c = rows;
  m.down.ldc = row_pitch;
  std::string up, down;
  for (auto [g, text] : {std::pair{&m.up, &up}, std::pair{&m.down, &down}}) {
    g->plan = plan_grouped_gemm(*g, caps, text);
    g->workspace = take(static_cast<int64_t>(g->plan.workspace_bytes));
  }
  m.combine.rows = rows;
  m.combine.inverse = a.inverse;
  *reason = format("%lld slots sorted by expert, two grouped products, a sum for each token; gate and up: %s; down: %s", static_cast<long long>(slots),
                   up.empty() ? "nothing" : up.c_str(), down.c_str());
  return m;
}

}  // namespace culebra

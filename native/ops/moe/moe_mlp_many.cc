#include "ops/moe/moe_mlp_many.h"

#include <algorithm>

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

// Rows of an expert from which on f8 products are worth more than the weights' bytes, and e4m3 activations a pass over them.
constexpr int64_t kQuantizeFrom = 64;

// x [rows, columns] of half as e4m3 with a scale for each 128; take(bytes) is memory for them.
template <class Take>
QuantizeActivationsParams quantization(const void* x, int64_t stride, int64_t rows, int64_t columns, DType dtype, Take&& take) {
  QuantizeActivationsParams q{};
  q.x = x;
  q.ldx = stride;
  q.m = rows;
  q.k = columns;
  q.block = quantize::kActivationBlock;
  q.blocks = q.lds = ceil_div(columns, q.block);
  q.ldq = ceil_div(columns, 16) * 16;
  q.dtype = dtype;
  q.f8 = true;
  q.q = take(rows * q.ldq);
  q.scales = static_cast<float*>(take(4 * rows * q.lds));
  return q;
}

void take_quantized(GroupedGemmParams& g, const QuantizeActivationsParams& q) {
  g.dtype = DType::f8e4m3;
  g.a = q.q;
  g.lda = q.ldq;
  g.a_scale = q.scales;
  g.a_scale_stride = q.lds;
}

}  // namespace

MoeMlpMany plan_moe_mlp_many(const MoeMlpParams& p, const DeviceCaps& caps, void* workspace, std::string* reason) {
  const int64_t slots = p.tokens * p.slots_per_token, hidden_pitch = ceil_div(p.expert_width, 8) * 8, row_pitch = ceil_div(p.width, 8) * 8;
  MoeMlpMany m;
  m.any_slots = slots > 0 && p.experts > 0 && p.width > 0;
  // Where only the size is wanted, addresses are wrong, but there: plans ask which tensors a product has.
  char* const base = workspace ? static_cast<char*>(workspace) : reinterpret_cast<char*>(uintptr_t{256});
  const auto take = [&](int64_t bytes) {
    void* const at = base + m.workspace_bytes;
    m.workspace_bytes += align256(bytes);
    return at;
  };

  m.combine.dtype = p.dtype;
  m.combine.aligned = p.y_stride % 8 == 0 || p.tokens <= 1;
  m.combine.rows_stride = row_pitch;
  m.combine.row_count = slots;
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
  void* const hidden = m.hidden = take(2 * slots * hidden_pitch);
  m.hidden_pitch = hidden_pitch;
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
  if (p.w13.storage == CUL_EXPERTS_F8 && !p.batch_invariant && slots > kQuantizeFrom * std::min(p.experts, slots)) {
    GroupedGemmParams first = m.up, second = m.down;
    const auto nowhere = [&](int64_t) { return static_cast<void*>(base); };
    take_quantized(first, quantization(p.x, p.x_stride, p.tokens, p.width, p.dtype, nowhere));
    take_quantized(second, quantization(hidden, hidden_pitch, slots, p.expert_width, p.dtype, nowhere));
    m.quantized = plan_grouped_gemm(first, caps, &up).design == GemmDesign::hopper && plan_grouped_gemm(second, caps, &down).design == GemmDesign::hopper;
  }
  if (m.quantized) {
    m.quantize_x = quantization(p.x, p.x_stride, p.tokens, p.width, p.dtype, take);
    m.quantize_hidden = quantization(hidden, hidden_pitch, slots, p.expert_width, p.dtype, take);
    take_quantized(m.up, m.quantize_x);
    take_quantized(m.down, m.quantize_hidden);
  }
  for (auto [g, text] : {std::pair{&m.up, &up}, std::pair{&m.down, &down}}) {
    text->clear();
    g->plan = plan_grouped_gemm(*g, caps, text);
    g->workspace = take(static_cast<int64_t>(g->plan.workspace_bytes));
  }
  // The copy engine brings whole tiles; quantization takes every row.
  m.clear = m.quantized ? static_cast<int32_t>(slots) : m.down.plan.design == GemmDesign::hopper ? m.down.plan.tile_tokens : 0;
  m.combine.rows = rows;
  m.combine.inverse = a.inverse;
  *reason = format("%lld slots sorted by expert, two grouped products%s, a sum for each token; gate and up: %s; down: %s",
                   static_cast<long long>(slots), m.quantized ? " of e4m3 activations with a scale for each 128" : "",
                   up.empty() ? "nothing" : up.c_str(), down.c_str());
  return m;
}

}  // namespace culebra

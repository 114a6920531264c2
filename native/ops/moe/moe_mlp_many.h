// moe_mlp for many tokens, on cuda and simt: slots sorted by expert, a grouped product with the activation, one more, and a sum for each
// token.
#pragma once
#include <string>

#include "ops/gemm/quantize_activations.h"
#include "ops/moe/grouped_gemm.h"
#include "ops/moe/moe_align.h"
#include "ops/moe/moe_combine.h"

namespace culebra {

struct MoeMlpParams;

// The four steps; all between them lies in the workspace.
struct MoeMlpMany {
  bool any_slots = false;  // else y is zeros
  bool quantized = false;  // activations become e4m3 before each product
  QuantizeActivationsParams quantize_x{}, quantize_hidden{};
  MoeAlignParams align;
  int32_t* gather = nullptr;  // [slots]: the token of each sorted row
  void* hidden = nullptr;     // [slots, hidden_pitch]: half
  int64_t hidden_pitch = 0;
  int32_t clear = 0;          // rows behind the last slot's that are read, too
  GroupedGemmParams up;       // hidden[r] = act(w13 x[gather[r]] + b13)
  GroupedGemmParams down;     // rows[r] = w2 hidden[r] + b2
  MoeCombineParams combine;   // y[t] = sum_j weights[t,j] rows[inverse[t k + j]]
  uint64_t workspace_bytes = 0;
};

// A pure function of the call, the device and where the workspace is (null while only its size is wanted). reason: what was chosen and why.
MoeMlpMany plan_moe_mlp_many(const MoeMlpParams& p, const DeviceCaps& caps, void* workspace, std::string* reason);

namespace cuda {
void moe_mlp_many(const MoeMlpMany& steps, CUstream_st* stream);
}
namespace simt {
void moe_mlp_many(const MoeMlpMany& steps, Queue* stream);
}

}  // namespace culebra

// moe_mlp for many tokens, on cuda and simt: slots sorted by expert, a grouped product with the activation, one more, and a sum for each
// token.
#pragma once
#include <string>

#include "ops/moe/grouped_gemm.h"
#include "ops/moe/moe_align.h"
#include "ops/moe/moe_combine.h"

namespace culebra {

struct MoeMlpParams;

// The four steps; all between them lies in the workspace.
struct MoeMlpMany {
  bool any_slots = false;  // else y is zeros
  MoeAlignParams align;
  int32_t* gather = nullptr;  // [slots]: the token of each sorted row
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

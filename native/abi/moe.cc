#include "culebra/moe.h"

#include "abi/registry.h"
#include "ops/moe/moe_mlp.h"
#include "ops/moe/moe_route.h"

namespace culebra {

static constexpr Op<MoeRouteParams> kMoeRoute{"moe_route", "moe", "f32 f16 bf16", cpu::moe_route, nullptr, nullptr};
static constexpr Op<MoeMlpParams> kMoeMlp{"moe_mlp", "moe", "f16 bf16", cpu::moe_mlp, nullptr, nullptr};

static constexpr const OpRecord* kOps[] = {&kMoeRoute, &kMoeMlp};
const OpList kMoeOps{kOps, static_cast<int>(std::size(kOps))};

}  // namespace culebra

using namespace culebra;

extern "C" {

cul_status cul_moe_route(cul_stream* stream, const cul_moe_route_args* args) {
  return run_op(kMoeRoute, stream, args, check_moe_route);
}
cul_status cul_moe_mlp(cul_stream* stream, const cul_moe_mlp_args* args) {
  return run_op(kMoeMlp, stream, args, check_moe_mlp);
}

}  // extern "C"

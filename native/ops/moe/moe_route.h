// moe_route: its plan and its columns.
#pragma once
#include "abi/op.h"
#include "culebra/moe.h"

namespace culebra {

struct MoeRouteParams {
  static constexpr int64_t kMaxExperts = 2048;
  static constexpr int64_t kMaxSelected = 32;

  DType dtype = DType::f32;
  const void* logits = nullptr;  // [T,E]
  int64_t logits_stride = 0;
  const float* bias = nullptr;
  float* weights = nullptr;  // [T, k + n_shared]
  int64_t weights_stride = 0;
  int32_t* ids = nullptr;
  int64_t ids_stride = 0;
  int64_t tokens = 0, experts = 0;
  int32_t k = 0, groups = 1, kept_groups = 1, shared = 0;
  bool sigmoid = false, renormalize = false;
  float scale = 1;
};

struct RoutingAttributes {
  int32_t k, score, n_group, topk_group, renormalize, n_shared;
  float scale;
};

// All but where weights and ids go.
MoeRouteParams check_routing(const Call& call, const View& logits, const View& bias, const RoutingAttributes& attributes);

MoeRouteParams check_moe_route(const Call& call, const cul_moe_route_args& args);
CUL_DECLARE_COLUMNS(moe_route, MoeRouteParams)

}  // namespace culebra

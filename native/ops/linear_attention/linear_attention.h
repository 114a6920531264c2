// linear_attention: a recurrence without decay behind a feature map, with a normaliser or without. Maths: README.md.
#pragma once
#include "ops/linear_attention/feature_map.h"
#include "ops/linear_attention/recurrence.h"

namespace culebra {

struct LinearAttentionParams : RecurrenceParams {
  FeatureMap features = FeatureMap::none;
  bool normalize = false;
  bool causal = true;
  float eps = 0;
  Vectors initial_z, final_z;  // [N,H,F]; data is null where absent
  // Workspace: with normalize, what outputs are divided by, f32 [B,T,H].
  float* divisor = nullptr;

  int64_t features_dim() const { return feature_dim(features, key_dim); }
};

LinearAttentionParams check_linear_attention(const Call& call, const cul_linear_attention_args& args);
CUL_DECLARE_COLUMNS(linear_attention, LinearAttentionParams)

}  // namespace culebra

// linear_attention: a recurrence without decay behind a feature map, with a normaliser or without. Maths: README.md.
#pragma once
#include "ops/linear_attention/feature_map.h"
#include "ops/linear_attention/normaliser.h"
#include "ops/linear_attention/recurrence.h"

namespace culebra {

struct LinearAttentionParams : RecurrenceParams {
  FeatureMap features = FeatureMap::none;
  bool normalize = false;
  bool causal = true;
  float eps = 0;
  Vectors initial_z, final_z;  // [N,H,F]; data is null where absent
  // Workspace. With normalize what outputs are divided by, on the device multiplied with, f32 [B,T,H].
  float* divisor = nullptr;
  // On the device: q and k behind their map, dense [B,T,H,F]; chunks' sums of the normaliser; a row of zeros; states that the call
  // needs but does not return, with the rows of initial; the same of z.
  void *q_features = nullptr, *k_features = nullptr, *zeros = nullptr;
  float *chunk_sums = nullptr, *chunk_decays = nullptr, *z_ends = nullptr;
  float *own_states = nullptr, *own_z = nullptr;
  int64_t slots = 0;

  CUL_NUMERIC int64_t features_dim() const { return feature_dim(features, key_dim); }
  // F is too wide for registers, or no multiple of 8: kernels of its own.
  bool wide() const { return features == FeatureMap::taylor2 || features_dim() > kMaxNormaliserColumns; }
  // On the device, where not wide: behind the feature map.
  NormaliserParams normaliser() const;
  RecurrenceParams inner() const;
  // The states that a call without final has in the workspace.
  States work_states() const;
};

LinearAttentionParams check_linear_attention(const Call& call, const cul_linear_attention_args& args);
namespace cuda {
void run_wide_linear_attention(const LinearAttentionParams& p, CUstream_st* stream);
}
namespace simt {
void run_wide_linear_attention(const LinearAttentionParams& p, Queue* stream);
}
CUL_DECLARE_COLUMNS(linear_attention, LinearAttentionParams)

}  // namespace culebra

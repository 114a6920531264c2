// gated_delta_rule: its plan and its columns. Maths and decisions: README.md.
#pragma once
#include "abi/op.h"
#include "culebra/linear_attention.h"
#include "ops/linear_attention/sequences.h"

namespace culebra {

struct GatedDeltaRuleParams {
  // Per token and head: element (b, t, h, i) at data[b batch + t token + h head + i].
  struct Heads {
    void* data = nullptr;
    int64_t batch = 0, token = 0, head = 0;
  };
  // A state: element (n, h, v, k) at data[n row + h head + v v_stride + k k_stride]; which of the last two is 1 is the
  // state layout.
  struct States {
    float* data = nullptr;
    int64_t row = 0, head = 0, v_stride = 0, k_stride = 0;
    float* at(int64_t n, int64_t h) const { return data + n * row + h * head; }
  };

  // State rows of a cpu work item: what it keeps in the L1 cache.
  static constexpr int64_t kRowsPerItem = 32;
  int64_t row_groups() const { return (value_dim + kRowsPerItem - 1) / kRowsPerItem; }

  Sequences sequences;
  DType dtype = DType::f32;
  int64_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
  Heads q, k, v, o;
  Heads beta, gate;  // [B,T,HV]: gate is g, or a where a_log is set
  const float* a_log = nullptr;
  const float* dt_bias = nullptr;
  States initial, final, checkpoints;  // data is null where absent
  int64_t checkpoint_count = 0;        // rows of checkpoints
  int32_t checkpoint_every = 0;
  float scale = 1;
  bool l2norm = false;
};

GatedDeltaRuleParams check_gated_delta_rule(const Call& call, const cul_gated_delta_rule_args& args);
CUL_DECLARE_COLUMNS(gated_delta_rule, GatedDeltaRuleParams)

}  // namespace culebra

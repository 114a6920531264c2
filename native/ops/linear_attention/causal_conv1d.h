// causal_conv1d: its plan and its columns.
#pragma once
#include "abi/op.h"
#include "culebra/linear_attention.h"
#include "ops/linear_attention/sequences.h"

namespace culebra {

struct CausalConv1dParams {
  static constexpr int64_t kMaxWidth = 4;
  // Channels of a cpu work item.
  static constexpr int64_t kChannelsPerItem = 64;
  int64_t channel_groups() const { return (channels + kChannelsPerItem - 1) / kChannelsPerItem; }

  // Element (b, t, c) at data[b batch + t token + c].
  struct Rows {
    void* data = nullptr;
    int64_t batch = 0, token = 0;
  };
  // Element (n, c, j) at data[n row + c channel + j]: the last width - 1 inputs, oldest first.
  struct States {
    void* data = nullptr;
    int64_t row = 0, channel = 0;
  };

  Sequences sequences;
  DType dtype = DType::f32;
  int64_t channels = 0, width = 0;
  Rows x, y;
  const void* w = nullptr;  // [C,W], rows w_stride apart
  int64_t w_stride = 0;
  const void* bias = nullptr;
  States state, final;
  bool silu = false;
  bool validate = false;  // CUL_OP_VALIDATE: index tensors are checked on the device too
};

CausalConv1dParams check_causal_conv1d(const Call& call, const cul_causal_conv1d_args& args);
CUL_DECLARE_COLUMNS(causal_conv1d, CausalConv1dParams)

}  // namespace culebra

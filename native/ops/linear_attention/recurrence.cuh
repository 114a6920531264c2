// What the kernels of the recurrences share: addressing, gates, checkpoints.
#pragma once
#include "device/vector.h"
#include "device/warp.h"
#include "ops/glue/rows.h"
#include "ops/linear_attention/recurrence.h"
#include "ops/linear_attention/sequences.cuh"

namespace culebra::CUL_DEVICE_NS {

inline constexpr int64_t kAnyLength = int64_t{1} << 62;

template <class T>
CUL_DEVICE_FN T* head_row(const RecurrenceParams::Heads& x, int64_t batch, int64_t token, int64_t head) {
  return static_cast<T*>(x.data) + batch * x.batch + token * x.token + head * x.head;
}

CUL_DEVICE_FN float* state_of(const RecurrenceParams::States& s, int64_t row, int64_t head) {
  return s.data ? s.data + row * s.row + head * s.head : nullptr;
}

// Elements i..i+3 of a row in f32.
template <class T>
CUL_DEVICE_FN void load_four(const T* row, bool aligned, float (&x)[4]) {
  if (aligned) {
    const Vector<T, 4> bits = load_vector<4>(row);
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = to_float(bits[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = to_float(row[i]);
  }
}
CUL_DEVICE_FN void load_four(DType type, const void* data, int64_t offset, bool aligned, float (&x)[4]) {
  if (type == DType::f32)
    load_four(static_cast<const float*>(data) + offset, aligned, x);
  else if (type == DType::f16)
    load_four(static_cast<const half_t*>(data) + offset, aligned, x);
  else
    load_four(static_cast<const bfloat16_t*>(data) + offset, aligned, x);
}
CUL_DEVICE_FN float load_one(DType type, const void* data, int64_t offset) {
  if (type == DType::f32) return static_cast<const float*>(data)[offset];
  if (type == DType::f16) return to_float(static_cast<const half_t*>(data)[offset]);
  return to_float(static_cast<const bfloat16_t*>(data)[offset]);
}
CUL_DEVICE_FN void store_one(DType type, void* data, int64_t offset, float x) {
  if (type == DType::f32)
    static_cast<float*>(data)[offset] = x;
  else if (type == DType::f16)
    static_cast<half_t*>(data)[offset] = from_float<half_t>(x);
  else
    static_cast<bfloat16_t*>(data)[offset] = from_float<bfloat16_t>(x);
}

// The log decay that a value of the gate tensor means, of one head and, where gates are of channels, one channel. kFast: with the
// hardware's approximations, whose error is 1e-6 and no matter for half operands.
template <bool kFast>
struct LogGate {
  GateMode mode;
  float bias = 0, factor = 1, lower_bound = 0;

  CUL_DEVICE_FN LogGate(const RecurrenceParams& p, int64_t head, int64_t channel) : mode(p.gate_mode) {
    if (mode == GateMode::log) return;
    if (p.dt_bias) bias = p.dt_bias[head * p.dt_bias_head + channel];
    if (p.a_log) factor = expf(p.a_log[head]);
    lower_bound = p.lower_bound;
  }
  CUL_DEVICE_FN float operator()(float raw) const {
    float g = raw;
    if (mode == GateMode::softplus) {
      const float x = raw + bias, small = kFast ? __expf(-fabsf(x)) : expf(-fabsf(x));
      g = -factor * ((x > 0 ? x : 0.0f) + (kFast ? __logf(1.0f + small) : log1pf(small)));
    } else if (mode == GateMode::lower_bound) {
      const float x = -factor * (raw + bias);
      g = lower_bound / (1.0f + (kFast ? __expf(x) : expf(x)));
    }
    return g < kLowestLogGate ? kLowestLogGate : g;
  }
};

// The type of the gate tensor's elements: raw gates have q's.
CUL_DEVICE_FN DType gate_type(const RecurrenceParams& p) { return p.gate_mode == GateMode::log ? DType::f32 : p.dtype; }

// Of 2 kCount values in each of 2 kOffset lanes, every lane keeps half, summed with the lane kOffset away: the upper half where the
// lane's bit kOffset is set.
template <int kOffset, int kCount, int kBoth>
CUL_DEVICE_FN void fold_lanes(const float (&x)[kBoth], float (&y)[kCount], int lane) {
  static_assert(kBoth == 2 * kCount);
  const bool upper = lane & kOffset;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float kept = upper ? x[kCount + i] : x[i], sent = upper ? x[i] : x[kCount + i];
    y[i] = kept + __shfl_xor_sync(kFullMask, sent, kOffset);
  }
}

// The row of the checkpoints where sequence n's begin. All lanes of a warp call.
CUL_DEVICE_FN int64_t first_checkpoint(const RecurrenceParams& p, int64_t n) {
  if (!p.checkpoint_every) return 0;
  const Sequences& s = p.sequences;
  if (!s.cu_seqlens) return n * (s.tokens / p.checkpoint_every);
  int before = 0;
  for (int64_t m = threadIdx.x % 32; m < n; m += 32) before += (s.cu_seqlens[m + 1] - s.cu_seqlens[m]) / p.checkpoint_every;
  return warp_sum(before);
}

// Every sequence of at most `longest` tokens, token by token.
void run_recurrent(const RecurrenceParams& p, int64_t longest, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS

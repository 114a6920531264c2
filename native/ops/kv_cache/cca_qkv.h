// cca_qkv: its plan and its columns.
#pragma once
#include "culebra/kv_cache.h"
#include "device/block_divide.h"
#include "ops/attention/head_rows.h"

namespace culebra {

struct CcaParams {
  DType dtype = DType::f32;
  int64_t batch = 0, tokens = 0, query_heads = 0, kv_heads = 0, dim = 0, rotary_pairs = 0;
  HeadRows x_q, x_k;          // outer = batch, row = token, head: D channels on
  HeadRows x_v1, x_v2;        // outer = batch, row = token
  HeadRows conv1_w, conv2_w;  // row = channel, head = input channel of the head (conv2)
  HeadRows cos, sin;          // f32, outer = batch, row = token
  HeadRows conv_state, new_conv_state;  // outer = batch, row = channel; data null where absent
  HeadRows v_state, new_v_state;        // outer = batch
  HeadRows q, k, v;           // outer = batch, row = token
  const void* conv1_b = nullptr;
  const void* conv2_b = nullptr;
  const float* temp = nullptr;

  CUL_NUMERIC int64_t group() const { return block_divide(query_heads, kv_heads).quotient; }
  CUL_NUMERIC int64_t heads() const { return query_heads + kv_heads; }
  CUL_NUMERIC int64_t value_half() const { return kv_heads * dim / 2; }

  // x = concat(x_q, x_k) of `head` (queries first), channel i, at token t >= -2: before 0 the state, or zeros.
  template <class T>
  CUL_NUMERIC float x(int64_t b, int64_t t, int64_t head, int64_t i) const {
    if (t < 0) return conv_state.data ? to_float(conv_state.at<const T>(b, head * dim + i, 0)[t + 2]) : 0.0f;
    const T* row = head < query_heads ? x_q.at<const T>(b, t, head) : x_k.at<const T>(b, t, head - query_heads);
    return to_float(row[i]);
  }
  // The first convolution there, t >= -1.
  template <class T>
  CUL_NUMERIC float y1(int64_t b, int64_t t, int64_t head, int64_t i) const {
    const T* w = conv1_w.at<const T>(0, head * dim + i, 0);
    const float bias = conv1_b ? to_float(static_cast<const T*>(conv1_b)[head * dim + i]) : 0.0f;
    return bias + to_float(w[0]) * x<T>(b, t - 1, head, i) + to_float(w[1]) * x<T>(b, t, head, i);
  }
  // Channel c of concat(x_v1[t], x_v2[t-1]).
  template <class T>
  CUL_NUMERIC T value(int64_t b, int64_t t, int64_t c) const {
    const int64_t half = value_half();
    if (c < half) return x_v1.at<const T>(b, t, 0)[c];
    if (t > 0) return x_v2.at<const T>(b, t - 1, 0)[c - half];
    return v_state.data ? v_state.at<const T>(b, 0, 0)[c - half] : T{};
  }
};

CcaParams check_cca_qkv(const Call& call, const cul_cca_qkv_args& args);
CUL_DECLARE_COLUMNS(cca_qkv, CcaParams)

}  // namespace culebra

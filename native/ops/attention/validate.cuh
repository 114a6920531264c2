// CUL_OP_VALIDATE: index tensors that lead outside fail the device before the kernels read by them.
#pragma once
#include "device/launch.h"
#include "ops/attention/attention.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

inline void validate(const AttentionParams& p, NativeStream stream) {
  if (p.validate) stream->enqueue([p] { p.require_valid(); });
}

#else

// A trap is the only way a kernel can fail its device. What AttentionParams::require_valid checks, a thread for each sequence.
//
// Computes: nothing; traps where cu_q, cu_k, kv_len or a page lead outside
// Shapes:   cu_q, cu_k i32 [B+1], or kv_len i32 [B] and page_table i32 [B,maxP]
// Layouts:  rows of page_table by their stride
// Tiles:    one block, a thread a sequence
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of the indices; a debug check
// Source:   ours
static __global__ void validate_attention_kernel(AttentionParams p) {
  for (int64_t b = threadIdx.x; b < p.sequences; b += blockDim.x) {
    if (p.cu_q) {
      if (p.cu_q[0] != 0 || p.cu_q[b + 1] < p.cu_q[b] || p.cu_q[b + 1] > p.query_rows || p.cu_k[0] != 0 || p.cu_k[b + 1] < p.cu_k[b] ||
          p.cu_k[b + 1] > p.key_rows)
        __trap();
      continue;
    }
    const int64_t keys = p.kv_len[b];
    if (keys < 0 || keys > p.key_rows) __trap();
    if (p.query_rows == 0) continue;
    const int64_t right = p.causal ? 0 : p.window_right;
    const int64_t begin = p.window_left < 0 ? 0 : max(keys - p.query_rows - p.window_left, int64_t{0});
    const int64_t end = right < 0 ? keys : min(max(keys + right, int64_t{0}), keys);
    for (int64_t i = begin / p.page_size; i * p.page_size < end; ++i)
      if (p.page_table[b * p.page_table_stride + i] < 0 || p.page_table[b * p.page_table_stride + i] >= p.pages) __trap();
  }
}
inline void validate(const AttentionParams& p, NativeStream stream) {
  if (p.validate) launch(validate_attention_kernel, dim3(1), dim3(256), 0, stream, p);
}

#endif

}  // namespace culebra::CUL_DEVICE_NS

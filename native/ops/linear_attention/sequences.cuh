// Sequences (sequences.h) as kernels see them.
#pragma once
#include "device/launch.h"
#include "ops/linear_attention/sequences.h"

namespace culebra::CUL_DEVICE_NS {

struct SequenceSpan {
  int64_t batch, begin, length, read_row, write_row;
  bool skipped;
};

CUL_DEVICE_FN SequenceSpan sequence_at(const Sequences& s, int64_t n) {
  SequenceSpan span;
  span.batch = s.cu_seqlens ? 0 : n;
  span.begin = s.cu_seqlens ? s.cu_seqlens[n] : 0;
  span.length = s.cu_seqlens ? s.cu_seqlens[n + 1] - span.begin : s.tokens;
  span.read_row = s.read_index ? s.read_index[n] : n;
  span.write_row = s.write_index ? s.write_index[n] : n;
  span.skipped = span.read_row < 0 || span.write_row < 0;
  return span;
}

// The first sequence that ends behind `token` of the packed row; count where there is none.
CUL_DEVICE_FN int64_t sequence_of_token(const Sequences& s, int64_t token) {
  int64_t low = 0, high = s.count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (s.cu_seqlens[middle + 1] > token)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

#if !CUL_EMULATED
// A trap is the only way a kernel can fail its device.
//
// Computes: nothing; traps where cu_seqlens or the pool's indices lead outside
// Shapes:   cu_seqlens i32 [N+1], read and write index i32 [N]
// Layouts:  contiguous
// Tiles:    one block, a thread a sequence
// Shared:   none
// Order:    of no consequence
// Numerics: integers
// Needs:    sm_80. Limit: the bytes of the indices; a debug check
// Source:   ours
static __global__ void validate_sequences_kernel(Sequences s) {
  for (int64_t n = threadIdx.x; n < s.count; n += blockDim.x) {
    bool valid = true;
    if (s.cu_seqlens)
      valid = s.cu_seqlens[n + 1] >= s.cu_seqlens[n] && s.cu_seqlens[n + 1] <= s.tokens && (n > 0 || s.cu_seqlens[0] == 0);
    if (s.read_index)
      valid = valid && s.read_index[n] >= -1 && s.read_index[n] < s.state_rows && s.write_index[n] >= -1 &&
              s.write_index[n] < s.state_rows;
    if (!valid) __trap();
  }
}
#endif

// Fails the device where cu_seqlens or the pool's indices would lead outside their tensors.
inline void validate_sequences(const char* op, const Sequences& s, NativeStream stream) {
#if CUL_EMULATED
  stream->enqueue([op, s] { s.require_valid(op); });
#else
  (void)op;
  if (s.count > 0) launch(validate_sequences_kernel, dim3(1), dim3(256), 0, stream, s);
#endif
}

}  // namespace culebra::CUL_DEVICE_NS

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

}  // namespace culebra::CUL_DEVICE_NS

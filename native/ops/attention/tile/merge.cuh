// Merging states (o, lse) of the same row over different keys: the second pass of a split, and merge_states.
#pragma once
#include "device/warp.h"
#include "ops/attention/tile/dense_tour.cuh"
#include "ops/attention/tile/key_tiles.cuh"

namespace culebra::CUL_DEVICE_NS {

// Rows (batch, row, head), row-major; state i of a row lies `state` bytes after state i - 1.
struct MergeRows {
  ByteRows in_o, in_lse, o, lse;  // lse.data may be null
  int64_t o_state, lse_state;
  const float* sinks;   // per head, or null
  const int32_t* end;  // rows of a batch from *end on are not there; null: all are
  int64_t rows, count, heads;  // rows of the call; count: rows of a batch
  int32_t states, dim, aligned;
};

constexpr int kMergeStateThreads = 128, kMergeStateRows = kMergeStateThreads / 32;

// Computes: o = sum_i e^(lse_i - lse) o_i, lse = ln sum_i e^lse_i; with a sink, o times e^lse / (e^lse + e^sink).
// Shapes:   o_i [states, rows, dim], lse_i [states, rows] -> o [rows, dim], lse [rows]; any of them empty.
// Layouts:  any strides; 16-byte accesses where rows allow.
// Tiles:    one warp a row.
// Shared:   none.
// Order:    states ascending in every sum of o; the sum of weights by lanes i, i + 32, .. and then by halves: states of -inf change no bit.
// Numerics: f32, one rounding to o. A state of -inf is not read, whatever its o holds.
// Needs:    sm_80. Limit: the bytes of o_i.
// Source:   the associative merge of Milakov and Gimelshein, arXiv:1805.02867.
template <class In, class Out>
__global__ void __launch_bounds__(kMergeStateThreads) merge_rows(MergeRows p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kMergeStateRows + threadIdx.x / 32;
  if (row >= p.rows) return;
  const int64_t h = row % p.heads, r = row / p.heads % p.count, b = row / p.heads / p.count;
  if (p.end && r >= *p.end) return;
  const auto lse_of = [&](int i) { return *reinterpret_cast<const float*>(p.in_lse.at(b, r, h) + i * p.lse_state); };
  float highest = kNoScore;
  for (int i = lane; i < p.states; i += 32) highest = fmaxf(highest, lse_of(i));
  highest = warp_max(highest);
  const float base = highest == kNoScore ? 0.0f : highest;
  float sum = 0;
  for (int i = lane; i < p.states; i += 32) sum += fast_exp2((lse_of(i) - base) * kLog2e);
  sum = warp_sum(sum);
  const bool nothing = highest == kNoScore && sum == 0;  // a NaN is something
  const float sink = p.sinks ? p.sinks[h] : kNoScore;
  const float inverse = nothing ? 0.0f : 1 / (sink == kNoScore ? sum : sum + fast_exp2((sink - base) * kLog2e));
  Out* const o = reinterpret_cast<Out*>(p.o.at(b, r, h));
  const char* const first = p.in_o.at(b, r, h);
  for (int c = lane * 8; c < p.dim; c += 256) {
    float total[8] = {};
    for (int i = 0; i < p.states; ++i) {
      const float lse = lse_of(i);
      if (lse == kNoScore) continue;
      const float weight = fast_exp2((lse - base) * kLog2e) * inverse;
      const In* const from = reinterpret_cast<const In*>(first + i * p.o_state);
      if (p.aligned) {
        constexpr int kSize = 16 / static_cast<int>(sizeof(In));
#pragma unroll
        for (int part = 0; part < 8; part += kSize) {
          const auto values = load_vector<kSize>(from + c + part);
#pragma unroll
          for (int j = 0; j < kSize; ++j) total[part + j] = fmaf(weight, to_float(values[j]), total[part + j]);
        }
      } else {
        for (int j = 0; j < 8 && c + j < p.dim; ++j) total[j] = fmaf(weight, to_float(from[c + j]), total[j]);
      }
    }
    if (p.aligned) {
      constexpr int kSize = 16 / static_cast<int>(sizeof(Out));
#pragma unroll
      for (int part = 0; part < 8; part += kSize) {
        Vector<Out, kSize> values;
#pragma unroll
        for (int j = 0; j < kSize; ++j) values[j] = from_float<Out>(total[part + j]);
        store_vector(o + c + part, values);
      }
    } else {
      for (int j = 0; j < 8 && c + j < p.dim; ++j) o[c + j] = from_float<Out>(total[j]);
    }
  }
  if (lane == 0 && p.lse.data) *reinterpret_cast<float*>(p.lse.at(b, r, h)) = nothing ? kNoScore : base + logf(sum);
}

template <class In, class Out>
void launch_merge(const MergeRows& p, NativeStream stream) {
  if (p.rows == 0) return;
  const int64_t blocks = (p.rows + kMergeStateRows - 1) / kMergeStateRows;
  launch(merge_rows<In, Out>, dim3(static_cast<unsigned>(blocks)), dim3(kMergeStateThreads), 0, stream, p);
}

// Partial results of `splits` splits, as Problem describes them, to the rows (batch, row, head) of o and lse.
inline MergeRows split_rows(const Problem& p, int64_t count, int64_t heads, const ByteRows& o, const ByteRows& lse, const float* sinks) {
  MergeRows merge{};
  merge.rows = p.partial_rows;
  merge.count = count;
  merge.heads = heads;
  merge.states = p.splits;
  merge.dim = p.value_dim;
  merge.aligned = p.aligned && p.value_dim % 8 == 0;
  const int64_t row_bytes = p.value_dim * int64_t{sizeof(float)};
  merge.in_o.data = reinterpret_cast<char*>(p.partial_o);
  merge.in_o.batch = count * heads * row_bytes;
  merge.in_o.row = heads * row_bytes;
  merge.in_o.head = row_bytes;
  merge.o_state = p.partial_rows * row_bytes;
  merge.in_lse.data = reinterpret_cast<char*>(p.partial_lse);
  merge.in_lse.batch = count * heads * int64_t{sizeof(float)};
  merge.in_lse.row = heads * int64_t{sizeof(float)};
  merge.in_lse.head = sizeof(float);
  merge.lse_state = p.partial_rows * int64_t{sizeof(float)};
  merge.o = o;
  merge.lse = lse;
  merge.sinks = sinks;
  return merge;
}
template <class T>
void merge_partial(const Problem& p, int64_t count, int64_t heads, const ByteRows& o, const ByteRows& lse, const float* sinks,
                   NativeStream stream) {
  launch_merge<float, T>(split_rows(p, count, heads, o, lse, sinks), stream);
}

}  // namespace culebra::CUL_DEVICE_NS

#include "ops/linear_attention/chunk.cuh"
#include "ops/linear_attention/normaliser.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = NormaliserParams;

constexpr int kWarps = 4;
constexpr int kAhead = 8;
constexpr int kPerLane = kMaxNormaliserColumns / 32;

// n = e^g n + weight k of one token; the lane has columns lane, lane + 32, ...
CUL_DEVICE_FN float add_token(const Params& p, const SequenceSpan& seq, int64_t token, int64_t head, int lane, float (&n)[kPerLane]) {
  const int64_t at = p.at(seq.batch, token, head);
  const float g = p.gate ? p.gate[at] : 0.0f;
  const float decay = g == 0 ? 1.0f : expf(g < kLowestLogGate ? kLowestLogGate : g), weight = p.weight ? p.weight[at] : 1.0f;
  const int64_t k = seq.batch * p.k.batch + token * p.k.token + head * p.k.head;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int column = lane + 32 * i;
    if (column < p.columns) n[i] = fmaf(decay, n[i], weight * load_one(p.dtype, p.k.data, k + column));
  }
  return decay;
}

CUL_DEVICE_FN void store_factor(const Params& p, const SequenceSpan& seq, int64_t token, int64_t head, int lane, const float (&n)[kPerLane]) {
  const int64_t q = seq.batch * p.q.batch + token * p.q.token + head * p.q.head;
  float product = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int column = lane + 32 * i;
    if (column < p.columns) product = fmaf(n[i], load_one(p.dtype, p.q.data, q + column), product);
  }
  product = p.scale * warp_sum(product);
  if (lane) return;
  const int64_t at = p.at(seq.batch, token, head);
  if (p.least) {
    const float size = fabsf(product);
    product = size < p.least[at] ? p.least[at] : size;
  }
  p.factor[at] = 1.0f / (product + p.eps);
}

// The warp's (slot, head), or false where all are taken.
CUL_DEVICE_FN bool next_item(const Params& p, int64_t& item, int64_t& slot, int64_t& head) {
  if (item >= p.slots * p.heads) return false;
  slot = divide(item, p.heads);
  head = item - slot * p.heads;
  return true;
}

// Computes: of each chunk of 64 tokens the weighted keys' sum with their decay to the chunk's end, and that decay
// Shapes:   k [B,T,H,F], F up to 256; sums f32 [slots,H,F]
// Layouts:  k any strides, f32, f16 or bf16; the rest dense
// Tiles:    a warp has a chunk of one head
// Shared:   none
// Order:    tokens in order
// Numerics: f32
// Needs:    sm_80. Limit: k once; 64 dependent steps
// Source:   Beck et al., arXiv:2503.14376 (normaliser of chunks)
__global__ void __launch_bounds__(32 * kWarps) chunk_sums_kernel(Params p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, slot, head;
  for (; next_item(p, item, slot, head); item += int64_t{gridDim.x} * kWarps) {
    const ChunkSpan chunk = span_of_slot(p.sequences, slot);
    if (chunk.count == 0) continue;
    float n[kPerLane] = {}, decay = 1;
    for (int t = 0; t < chunk.count; ++t)
      decay *= add_token(p, chunk.sequence, chunk.sequence.begin + chunk.begin + t, head, lane, n);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (lane + 32 * i < p.columns) p.sums[item * p.columns + lane + 32 * i] = n[i];
    if (lane == 0) p.decays[item] = decay;
  }
}

// Computes: n at the beginning of each chunk, in place of the chunk's sum, and behind the last
// Shapes:   sums f32 [slots,H,F]; initial, final f32 [N,H,F]
// Layouts:  dense; states any strides
// Tiles:    a thread has a column of one sequence and head
// Shared:   none
// Order:    chunks in order, eight read ahead
// Numerics: f32
// Needs:    sm_80. Limit: the sums once in and once out, a dependent step a chunk
// Source:   Beck et al., arXiv:2503.14376
__global__ void __launch_bounds__(128) scan_sums_kernel(Params p) {
  const int64_t items = p.sequences.count * p.heads * p.columns;
  for (int64_t item = int64_t{blockIdx.x} * 128 + threadIdx.x; item < items; item += int64_t{gridDim.x} * 128) {
    const int64_t row = divide(item, p.columns), column = item - row * p.columns;
    const int64_t sequence = divide(row, p.heads), head = row - sequence * p.heads;
    const SequenceSpan seq = sequence_at(p.sequences, sequence);
    if (seq.skipped) continue;
    float n = p.initial.data ? p.initial.data[seq.read_row * p.initial.row + head * p.initial.head + column] : 0.0f;
    const int64_t first = first_slot(p.sequences, sequence, kChunk);
    const int64_t end = first + (seq.length + kChunk - 1) / kChunk;
    for (int64_t slot = first; slot < end; slot += kAhead) {
      // All loads of a few chunks before the chain: their latency once.
      float sums[kAhead], decays[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int64_t at = (slot + i) * p.heads + head;
        sums[i] = slot + i < end ? p.sums[at * p.columns + column] : 0.0f;
        decays[i] = slot + i < end ? p.decays[at] : 1.0f;
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (slot + i < end) p.sums[((slot + i) * p.heads + head) * p.columns + column] = n;
        n = fmaf(decays[i], n, sums[i]);
      }
    }
    if (p.final.data) p.final.data[seq.write_row * p.final.row + head * p.final.head + column] = n;
    if (p.ends) p.ends[item] = n;
  }
}

// Computes: 1 / (scale n.q + eps) or 1 / (max(|scale n.q|, least) + eps) of every token
// Shapes:   q, k [B,T,H,F], F up to 256; factor f32 [B,T,H]
// Layouts:  q, k any strides, f32, f16 or bf16; the rest dense
// Tiles:    a warp has a chunk of one head, n in registers
// Shared:   none
// Order:    of a product: a lane's columns in order, then a butterfly; a token depends on its chunk's beginning and the tokens before it
// Numerics: f32
// Needs:    sm_80. Limit: q and k once; 64 dependent steps
// Source:   Beck et al., arXiv:2405.04517; Katharopoulos et al., arXiv:2006.16236
__global__ void __launch_bounds__(32 * kWarps) factors_kernel(Params p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int64_t item = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32, slot, head;
  for (; next_item(p, item, slot, head); item += int64_t{gridDim.x} * kWarps) {
    const ChunkSpan chunk = span_of_slot(p.sequences, slot);
    if (chunk.count == 0) continue;
    const int64_t sequence = sequence_of_slot(p.sequences, slot, kChunk);
    const float* from = p.causal ? p.sums + item * p.columns : p.ends + (sequence * p.heads + head) * p.columns;
    float n[kPerLane] = {};
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (lane + 32 * i < p.columns) n[i] = from[lane + 32 * i];
    for (int t = 0; t < chunk.count; ++t) {
      const int64_t token = chunk.sequence.begin + chunk.begin + t;
      if (p.causal) add_token(p, chunk.sequence, token, head, lane, n);
      store_factor(p, chunk.sequence, token, head, lane, n);
    }
  }
}

}  // namespace

void run_normaliser(const Params& p, NativeStream stream) {
  const auto grid = [](int64_t items) { return dim3(static_cast<unsigned>(items < 0x7fffffff ? items : 0x7fffffff)); };
  const int64_t chunks = (p.slots * p.heads + kWarps - 1) / kWarps, columns = p.sequences.count * p.heads * p.columns;
  if (chunks > 0) launch(chunk_sums_kernel, grid(chunks), dim3(32 * kWarps), 0, stream, p);
  if (columns > 0) launch(scan_sums_kernel, grid((columns + 127) / 128), dim3(128), 0, stream, p);
  if (chunks > 0) launch(factors_kernel, grid(chunks), dim3(32 * kWarps), 0, stream, p);
}

}  // namespace culebra::CUL_DEVICE_NS

// mixture_of_memories on the device. Long sequences gather each memory's tokens (memory_routes.cu); the others go token by token,
// every memory's state in memory, since which of them a token needs only the token says.
#include "device/validate.h"
#include "ops/linear_attention/memory_routes.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = MixtureOfMemoriesParams;

constexpr int kWarps = 4;
constexpr int kRowsPerWarp = 2;  // of the states
constexpr int kRows = kWarps * kRowsPerWarp;
constexpr int kPerLane = 8;  // columns: K up to 256

// The columns of a lane are lane, lane + 32, ...
struct Row {
  float x[kPerLane];
};

CUL_DEVICE_FN float load_key(const Params& p, const RecurrenceParams::Heads& from, int64_t at, int lane, Row& row) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int column = lane + 32 * i;
    row.x[i] = column < p.key_dim ? load_one(p.dtype, from.data, at + column) : 0.0f;
    squares = fmaf(row.x[i], row.x[i], squares);
  }
  return p.l2norm ? 1.0f / sqrtf(warp_sum(squares) + kL2NormEps) : 1.0f;
}

// One row of a state takes a step; returns scale S q.
CUL_DEVICE_FN float step(const Params& p, const RecurrenceParams::States& where, float* state, const Row& q, const Row& k, float decay,
                         float beta, float v, int lane) {
  float s[kPerLane], seen = 0, product = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int column = lane + 32 * i;
    s[i] = column < p.key_dim ? decay * state[column * where.k_stride] : 0.0f;
    seen = fmaf(s[i], k.x[i], seen);
  }
  const float delta = beta * (v - warp_sum(seen));
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int column = lane + 32 * i;
    s[i] = fmaf(delta, k.x[i], s[i]);
    product = fmaf(s[i], q.x[i], product);
    if (column < p.key_dim) state[column * where.k_stride] = s[i];
  }
  return warp_sum(product);
}

// Computes: for each slot j of a token one gated delta rule step on memory ids[j]; o = sum_j weights[j] scale S^T q
// Shapes:   q, k [B,T,H,K] or [B,T,k,H,K], K up to 256; v alike; o [B,T,HV,V]; states [N,M,HV,V,K] or [N,M,HV,K,V]
// Layouts:  inner stride 1, f32, f16 or bf16; states where the call has its final ones, or in the workspace
// Tiles:    a warp has 2 rows of all memories of one head; lanes have every 32nd column
// Shared:   none
// Order:    tokens, then slots in order; of a product: a lane's columns in order, then a butterfly
// Numerics: f32; log gates below -30 count as -30
// Needs:    sm_80. Limit: 8 K bytes a row, token and slot, from L2 while the states fit there; two dependent sums a step
// Source:   Du et al., arXiv:2502.13685
__global__ void __launch_bounds__(32 * kWarps) memories_kernel(Params p, RecurrenceParams::States states, int64_t slices, int64_t items) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t head_item = divide(item, slices), first = (item - head_item * slices) * kRows + warp * kRowsPerWarp;
    const int64_t n = divide(head_item, p.value_heads), head = head_item - n * p.value_heads;
    const int64_t key_head = divide(head, divide(p.value_heads, p.key_heads));
    const SequenceSpan seq = sequence_at(p.sequences, n);
    if (p.gathered.used && seq.length > kRecurrentTokens) continue;
    const int64_t checkpoint0 = first_checkpoint(p, n);
    const int rows = p.value_dim - first < kRowsPerWarp ? static_cast<int>(p.value_dim - first) : kRowsPerWarp;
    if (rows <= 0) continue;
    const auto row_of = [&](const RecurrenceParams::States& s, int64_t row, int64_t m, int r) {
      return s.data + row * s.row + m * s.memory + head * s.head + (first + r) * s.v_stride;
    };
    const LogGate<false> log_gate(p, head, 0);
    if (!seq.skipped && states.data != p.initial.data) {
      for (int64_t m = 0; m < p.memories; ++m)
        for (int r = 0; r < rows; ++r)
          for (int64_t c = lane; c < p.key_dim; c += 32)
            row_of(states, seq.write_row, m, r)[c * states.k_stride] = row_of(p.initial, seq.read_row, m, r)[c * p.initial.k_stride];
    } else if (!seq.skipped && seq.read_row != seq.write_row) {
      for (int64_t m = 0; m < p.memories; ++m)
        for (int r = 0; r < rows; ++r)
          for (int64_t c = lane; c < p.key_dim; c += 32)
            row_of(states, seq.write_row, m, r)[c * states.k_stride] = row_of(states, seq.read_row, m, r)[c * states.k_stride];
    }
    for (int64_t t = 0; t < seq.length; ++t) {
      const int64_t token = seq.begin + t;
      float o[kRowsPerWarp] = {};
      for (int64_t j = 0; j < p.slots && !seq.skipped; ++j) {
        const int64_t m = static_cast<const int32_t*>(p.ids.data)[seq.batch * p.ids.batch + token * p.ids.token + j];
        if (m < 0) continue;
        const float weight = static_cast<const float*>(p.weights.data)[seq.batch * p.weights.batch + token * p.weights.token + j];
        Row q, k;
        const float q_factor =
            p.scale * load_key(p, p.q, seq.batch * p.q.batch + token * p.q.token + j * p.slot.q + key_head * p.q.head, lane, q);
        const float k_factor = load_key(p, p.k, seq.batch * p.k.batch + token * p.k.token + j * p.slot.k + key_head * p.k.head, lane, k);
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
          q.x[i] *= q_factor;
          k.x[i] *= k_factor;
        }
        const int64_t gate = seq.batch * p.gate.batch + token * p.gate.token + j * p.slot.gate + head * p.gate.head;
        const float decay = expf(log_gate(load_one(gate_type(p), p.gate.data, gate)));
        const float beta = head_row<const float>(p.beta, seq.batch, token, head)[j * p.slot.beta];
        const int64_t v = seq.batch * p.v.batch + token * p.v.token + j * p.slot.v + head * p.v.head + first;
#pragma unroll
        for (int r = 0; r < kRowsPerWarp; ++r)
          if (r < rows)
            o[r] = fmaf(weight, step(p, states, row_of(states, seq.write_row, m, r), q, k, decay, beta, load_one(p.dtype, p.v.data, v + r), lane), o[r]);
      }
      const int64_t out = seq.batch * p.o.batch + token * p.o.token + head * p.o.head + first;
#pragma unroll
      for (int r = 0; r < kRowsPerWarp; ++r)
        if (r < rows && lane == 0) store_one(p.dtype, p.o.data, out + r, o[r]);
      if (!p.checkpoint_every || (t + 1) % p.checkpoint_every) continue;
      const int64_t at = checkpoint0 + (t + 1) / p.checkpoint_every - 1;
      if (at >= p.checkpoint_count) continue;
      for (int64_t m = 0; m < p.memories; ++m)
        for (int r = 0; r < rows; ++r)
          for (int64_t c = lane; c < p.key_dim; c += 32)
            row_of(p.checkpoints, at, m, r)[c * p.checkpoints.k_stride] =
                seq.skipped ? 0.0f : row_of(states, seq.write_row, m, r)[c * states.k_stride];
    }
  }
}

}  // namespace

void mixture_of_memories(const Params& p, NativeStream stream) {
  if (p.sequences.count == 0) return;
  if (p.validate) validate(p.op, p, stream);
  if (p.gathered.used) {
    gather_memories(p, stream);
    recurrence(p.inner(), stream);
    combine_memories(p, stream);
    if (!p.sequences.cu_seqlens) return;
  }
  RecurrenceParams::States states = p.final;
  if (!states.data) states = p.work_states();
  const int64_t slices = (p.value_dim + kRows - 1) / kRows, items = p.sequences.count * p.value_heads * slices;
  launch(memories_kernel, dim3(static_cast<unsigned>(items < 0x7fffffff ? items : 0x7fffffff)), dim3(32 * kWarps), 0, stream, p, states, slices, items);
}

}  // namespace culebra::CUL_DEVICE_NS

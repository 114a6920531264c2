// linear_attention whose states are too wide for registers: token by token, states in memory.
#include "device/barrier.h"
#include "ops/linear_attention/linear_attention.h"
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = LinearAttentionParams;

constexpr int kThreads = 128;
constexpr int kRows = 4;  // of the state, a block

// A feature of a row: hedgehog's, with the row's maximum and sum, or taylor2's.
struct Feature {
  FeatureMap map;
  int width;
  float top, sum, first, square, cross;

  CUL_DEVICE_FN float operator()(const float* x, int64_t column) const {
    const int c = static_cast<int>(column);
    if (map == FeatureMap::hedgehog) return expf((c < width ? x[c] : -x[c - width]) - top) / sum;
    if (c == 0) return 1.0f;
    if (c <= width) return x[c - 1] * first;
    if (c <= 2 * width) return x[c - 1 - width] * x[c - 1 - width] * square;
    // The pair (i, j), i < j, that is number `left` in row order: row i begins at i (2 width - i - 1) / 2.
    const int left = c - 1 - 2 * width, edge = 2 * width - 1;
    int i = static_cast<int>((static_cast<float>(edge) - sqrtf(static_cast<float>(edge * edge - 8 * left))) / 2);
    while (i > 0 && i * (edge - i) / 2 > left) --i;
    while ((i + 1) * (edge - i - 1) / 2 <= left) ++i;
    return x[i] * x[i + 1 + left - i * (edge - i) / 2] * cross;
  }
};

struct Scratch {
  float q[256], k[256];
  float sums[kThreads / 32][kRows];
};

CUL_DEVICE_FN Feature feature_of(const Params& p, const float* x, int lane) {
  Feature f{p.features, static_cast<int>(p.key_dim), 0, 0, 0, 0, 0};
  const float width = static_cast<float>(p.key_dim);
  f.first = 1.0f / sqrtf(sqrtf(width));
  f.square = 1.0f / sqrtf(2.0f * width);
  f.cross = 1.0f / sqrtf(width);
  if (p.features != FeatureMap::hedgehog) return f;
  for (int c = lane; c < p.key_dim; c += 32) f.top = fmaxf(f.top, fabsf(x[c]));
  f.top = warp_max(f.top);
  for (int c = lane; c < p.key_dim; c += 32) f.sum += expf(x[c] - f.top) + expf(-x[c] - f.top);
  f.sum = warp_sum(f.sum);
  return f;
}

// kZ: z, whose only row has v = 1, and what outputs are multiplied with; else rows of S and the outputs.
//
// Computes: S += phi(k) v^T; o = factor scale S^T phi(q); or z += phi(k); factor = 1 / (scale phi(q).z + eps)
// Shapes:   q, k [B,T,H,K], K up to 256; v, o [B,T,HV,V]; states [N,HV,V,F] or [N,HV,F,V], z [N,H,F]; F = 2K or 1 + K + K (K + 1) / 2
// Layouts:  inner stride 1, f32, f16 or bf16; states where the call has its final ones, or in the workspace
// Tiles:    a block has 4 rows of one state; a thread every 128th column of them
// Shared:   q and k of a token in f32, a sum a warp and row
// Order:    a thread's columns in order, a butterfly over lanes, then warps in order
// Numerics: f32
// Needs:    sm_80. Limit: 8 F bytes a row and token, from L2 while the states fit there
// Source:   Arora et al., arXiv:2402.18668 (taylor2); Zhang et al., arXiv:2402.04347 (hedgehog)
template <bool kZ>
__global__ void __launch_bounds__(kThreads) wide_kernel(Params p, RecurrenceParams::States states, int64_t slices, int64_t items) {
  CUL_SHARED(Scratch, scratch, [1]);
  Scratch& s = scratch[0];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t F = p.features_dim(), heads = kZ ? p.key_heads : p.value_heads, values = kZ ? 1 : p.value_dim;
  const RecurrenceParams::States initial =
      kZ ? RecurrenceParams::States{p.initial_z.data, p.initial_z.row, p.initial_z.head, 0, 1, 0} : p.initial;
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t head_item = divide(item, slices), first = (item - head_item * slices) * kRows;
    const int64_t n = divide(head_item, heads), head = head_item - n * heads;
    const int64_t key_head = kZ ? head : divide(head, divide(p.value_heads, p.key_heads));
    const SequenceSpan seq = sequence_at(p.sequences, n);
    const int rows = values - first < kRows ? static_cast<int>(values - first) : kRows;
    const int64_t checkpoint0 = kZ ? 0 : first_checkpoint(p, n);
    if (seq.skipped) {
      if constexpr (!kZ)
        for (int64_t t = 0; t < seq.length; ++t)
          if (thread < rows)
            store_one(p.dtype, p.o.data, seq.batch * p.o.batch + (seq.begin + t) * p.o.token + head * p.o.head + first + thread, 0.0f);
    } else {
      float* const state = state_of(states, seq.write_row, head);
      const float* const from = state_of(initial, seq.read_row, head);
      for (int64_t c = thread; c < F; c += kThreads)
        for (int r = 0; r < rows; ++r)
          state[(first + r) * states.v_stride + c * states.k_stride] = from ? from[(first + r) * initial.v_stride + c * initial.k_stride] : 0.0f;
    }
    for (int pass = p.causal ? 1 : 0; pass < 2; ++pass) {
      const bool update = p.causal || pass == 0, read = pass == 1;
      for (int64_t t = 0; t < seq.length; ++t) {
        const int64_t token = seq.begin + t;
        float* const state = seq.skipped ? nullptr : state_of(states, seq.write_row, head);
        if (!seq.skipped) {
          __syncthreads();  // the token before is done with the scratch
          for (int c = thread; c < p.key_dim; c += kThreads) {
            s.q[c] = load_one(p.dtype, p.q.data, seq.batch * p.q.batch + token * p.q.token + key_head * p.q.head + c);
            s.k[c] = load_one(p.dtype, p.k.data, seq.batch * p.k.batch + token * p.k.token + key_head * p.k.head + c);
          }
          __syncthreads();
          const Feature q_of = feature_of(p, s.q, lane), k_of = feature_of(p, s.k, lane);
          float v[kRows], product[kRows];
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            v[r] = kZ ? 1.0f : 0.0f;
            if (!kZ && r < rows) v[r] = load_one(p.dtype, p.v.data, seq.batch * p.v.batch + token * p.v.token + head * p.v.head + first + r);
            product[r] = 0;
          }
          for (int64_t c = thread; c < F; c += kThreads) {
            const float k = update ? k_of(s.k, c) : 0.0f, q = read ? q_of(s.q, c) : 0.0f;
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
              if (r >= rows) break;
              float* const cell = state + (first + r) * states.v_stride + c * states.k_stride;
              float x = *cell;
              if (update) *cell = x = fmaf(k, v[r], x);
              product[r] = fmaf(x, q, product[r]);
            }
          }
          if (read) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) {
              const float sum = warp_sum(product[r]);
              if (lane == 0) s.sums[warp][r] = sum;
            }
            __syncthreads();
            if (thread < rows) {
              float sum = 0;
              for (int w = 0; w < kThreads / 32; ++w) sum += s.sums[w][thread];
              sum *= p.scale;
              const int64_t factor = p.factor_at(seq.batch, token, key_head);
              if (kZ)
                p.divisor[factor] = 1.0f / (sum + p.eps);
              else
                store_one(p.dtype, p.o.data, seq.batch * p.o.batch + token * p.o.token + head * p.o.head + first + thread,
                          p.normalize ? sum * p.divisor[factor] : sum);
            }
          }
        }
        if (kZ || !update || !p.checkpoint_every || (t + 1) % p.checkpoint_every) continue;
        const int64_t at = checkpoint0 + (t + 1) / p.checkpoint_every - 1;
        if (at >= p.checkpoint_count) continue;
        float* const to = state_of(p.checkpoints, at, head);
        for (int64_t c = thread; c < F; c += kThreads)
          for (int r = 0; r < rows; ++r)
            to[(first + r) * p.checkpoints.v_stride + c * p.checkpoints.k_stride] =
                seq.skipped ? 0.0f : state[(first + r) * states.v_stride + c * states.k_stride];
      }
    }
  }
}

}  // namespace

void run_wide_linear_attention(const Params& p, NativeStream stream) {
  const auto start = [&](auto kernel, const RecurrenceParams::States& states, int64_t heads, int64_t values) {
    const int64_t slices = (values + kRows - 1) / kRows, items = p.sequences.count * heads * slices;
    launch(kernel, dim3(static_cast<unsigned>(items < 0x7fffffff ? items : 0x7fffffff)), dim3(kThreads), 0, stream, p, states, slices, items);
  };
  if (p.normalize) {
    RecurrenceParams::States z{p.final_z.data, p.final_z.row, p.final_z.head, 0, 1, 0};
    if (!z.data) z = {p.own_z, p.key_heads * p.features_dim(), p.features_dim(), 0, 1, 0};
    start(wide_kernel<true>, z, p.key_heads, 1);
  }
  start(wide_kernel<false>, p.final.data ? p.final : p.work_states(), p.value_heads, p.value_dim);
}

}  // namespace culebra::CUL_DEVICE_NS

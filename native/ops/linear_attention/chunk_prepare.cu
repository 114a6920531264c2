// The first kernel of the chunkwise form: what a chunk needs that no state enters. Decay a head and token, or none.
#include "ops/linear_attention/chunk_inverse.cuh"
#include "ops/linear_attention/chunk_run.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kThreads = 128;

// Computes: of a chunk: b = cumsum g; P = tril(scale q k^T e^(b_i - b_j)); M = (I + tril(beta k k^T e^(b_i - b_j), -1))^-1 diag(beta);
//           the row factors e^b, scale e^b, e^(b_C - b) with the norms of k and q in them
// Shapes:   64 tokens, K up to 128; a record of chunk_layout.h for each value head
// Layouts:  q, k any strides; records dense
// Tiles:    a block has a chunk, a q/k head and `heads` of its value heads; 4 warps, each 16 rows of both products
// Shared:   45 KB: q and k [64][K + 8], then in their place the two triangles in f32; P
// Order:    products in k order of mma; every row of P and M is computed from rows up to it
// Numerics: products of the stored q and k, f32 sums; gates enter as differences, selected before exp; substitution in f32; M in two
//           parts for bf16
// Needs:    sm_80. Limit: per chunk and q/k head 256 K bytes of q and k in, 8 KB P, 8 or 16 KB M a value head out
// Source:   Yang et al., arXiv:2406.06484 and arXiv:2412.06464
template <class T>
__global__ void __launch_bounds__(kThreads, 2) prepare_kernel(Params p, ChunkLayout layout, unsigned char* records, int64_t splits, int heads,
                                                           bool aligned) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  ChunkScratch& s = *reinterpret_cast<ChunkScratch*>(shared);
  const int pitch = pitch_of(layout.keys), thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  T* const k_tile = reinterpret_cast<T*>(s.lower);
  static_assert(sizeof s.lower + sizeof s.inverse >= 2 * kChunk * pitch_of(kMaxChunkKeys) * sizeof(T));
  T* const q_tile = k_tile + kChunk * pitch;

  const int64_t unit = divide(blockIdx.x, splits), slot = divide(unit, p.key_heads), key_head = unit - slot * p.key_heads;
  const ChunkSpan chunk = chunk_of_slot(p, slot);
  if (chunk.count == 0) return;
  const int64_t batch = chunk.sequence.batch, token = chunk.sequence.begin + chunk.begin;
  copy_tokens(k_tile, head_row<const T>(p.k, batch, token, key_head), p.k.token, chunk.count, layout.keys, p.key_dim, aligned, thread, kThreads);
  copy_tokens(q_tile, head_row<const T>(p.q, batch, token, key_head), p.q.token, chunk.count, layout.keys, p.key_dim, aligned, thread, kThreads);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  if (thread < kChunk)
    s.k_norm[thread] = inverse_norm(k_tile + thread * pitch, layout.keys, p.l2norm);
  else
    s.q_norm[thread - kChunk] = inverse_norm(q_tile + (thread - kChunk) * pitch, layout.keys, p.l2norm);
  if (p.key_factor && thread < chunk.count) s.k_norm[thread] *= p.key_factor[p.factor_at(batch, token + thread, key_head)];
  if (p.query_factor && thread >= kChunk && thread < kChunk + chunk.count)
    s.q_norm[thread - kChunk] *= p.query_factor[p.factor_at(batch, token + thread - kChunk, key_head)];

  // Rows 16 warp.. of k k^T and q k^T, columns up to the diagonal block.
  float kk[8][4], qk[8][4];
#pragma unroll
  for (int j = 0; j < 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) kk[j][i] = qk[j][i] = 0;
  for (int step = 0; step < layout.keys; step += 16) {
    uint32_t ak[4], aq[4];
    const int at = (16 * warp + lane % 16) * pitch + step + lane / 16 * 8;
    ldmatrix_x4(ak, shared_address(k_tile + at));
    ldmatrix_x4(aq, shared_address(q_tile + at));
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      if (pair > warp) break;
      uint32_t b[4];
      ldmatrix_x4(b, shared_address(k_tile + (16 * pair + pair_row(lane)) * pitch + step + pair_column(lane)));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (layout.delta) mma_m16n8k16<T>(kk[2 * pair + half], ak, b[2 * half], b[2 * half + 1]);
        mma_m16n8k16<T>(qk[2 * pair + half], aq, b[2 * half], b[2 * half + 1]);
      }
    }
  }

  const int64_t group = divide(p.value_heads, p.key_heads);
  const int64_t first = (blockIdx.x - unit * splits) * heads;
  for (int64_t h = first; h < first + heads && h < group; ++h) {
    const int64_t head = key_head * group + h;
    unsigned char* const record = records + (slot * p.value_heads + head) * layout.record_bytes();
    if (thread < kChunk) {
      const bool inside = thread < chunk.count;
      float g = 0;
      if (inside && p.decay != Decay::none)
        g = LogGate<false>(p, head, 0)(
            load_one(gate_type(p), p.gate.data, batch * p.gate.batch + (token + thread) * p.gate.token + head * p.gate.head));
      s.log_decay[thread] = warp_inclusive_sum(g);
      s.beta[thread] = inside && layout.delta ? *head_row<const float>(p.beta, batch, token + thread, head) : 0.0f;
    }
    __syncthreads();
    const float half_sum = s.log_decay[31];
    __syncthreads();
    if (thread >= 32 && thread < kChunk) s.log_decay[thread] += half_sum;
    __syncthreads();

    const float last = s.log_decay[kChunk - 1];
    if (thread < kChunk) {
      float* factors = reinterpret_cast<float*>(record + layout.factors_at());
      const bool inside = thread < chunk.count;
      const float decay = expf(s.log_decay[thread]);
      factors[thread] = inside ? decay * s.k_norm[thread] : 0.0f;
      factors[kChunk + thread] = inside ? p.scale * decay * s.q_norm[thread] : 0.0f;
      factors[2 * kChunk + thread] = inside ? expf(last - s.log_decay[thread]) * s.k_norm[thread] : 0.0f;
    }
    for (int i = thread; i < layout.keys; i += kThreads) reinterpret_cast<float*>(record + layout.decay_at())[i] = expf(last);

#pragma unroll
    for (int tile = 0; tile < 8; ++tile) {
      if (tile > 2 * warp + 1) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = 16 * warp + lane / 4 + 8 * half, j = 8 * tile + lane % 4 * 2;
        float score[2];
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const bool below = i > j + c, use = i >= j + c && i < chunk.count;
          const float decay = use ? expf(s.log_decay[i] - s.log_decay[j + c]) * s.k_norm[j + c] : 0.0f;
          score[c] = use ? p.scale * s.q_norm[i] * decay * qk[tile][2 * half + c] : 0.0f;
          if (layout.delta) s.lower[j + c][i] = use && below ? s.beta[i] * s.k_norm[i] * decay * kk[tile][2 * half + c] : 0.0f;
        }
        *reinterpret_cast<uint32_t*>(&s.scores[i][j]) = pack2<T>(score[0], score[1]);
      }
    }
    __syncthreads();
    if (layout.delta && thread < kChunk) invert_column(s, thread);
    __syncthreads();
    store_triangles<T>(s, layout, record, thread, kThreads);
    __syncthreads();  // the next head overwrites them
  }
}

}  // namespace

void prepare_chunks(const Params& p, NativeStream stream) {
  const ChunkLayout& layout = p.plan.chunks;
  const int64_t group = p.value_heads / p.key_heads;
  // All value heads of a q/k head share its products, unless that leaves the device empty.
  const int heads = static_cast<int>(layout.slots * p.key_heads >= 264 ? group : 1);
  const int64_t splits = (group + heads - 1) / heads;
  const size_t shared = sizeof(ChunkScratch);
  const bool aligned = p.q.batch % 8 == 0 && p.q.token % 8 == 0 && p.q.head % 8 == 0 && p.k.batch % 8 == 0 && p.k.token % 8 == 0 &&
                       p.k.head % 8 == 0;
  const dim3 grid(static_cast<unsigned>(layout.slots * p.key_heads * splits));
  auto* records = static_cast<unsigned char*>(p.plan.workspace);
  if (p.dtype == DType::f16)
    launch(prepare_kernel<half_t>, grid, dim3(kThreads), shared, stream, p, layout, records, splits, heads, aligned);
  else
    launch(prepare_kernel<bfloat16_t>, grid, dim3(kThreads), shared, stream, p, layout, records, splits, heads, aligned);
}

}  // namespace culebra::CUL_DEVICE_NS

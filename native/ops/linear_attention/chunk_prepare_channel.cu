// The first kernel of the chunkwise form where every channel has its own decay.
#include "ops/linear_attention/chunk_inverse.cuh"
#include "ops/linear_attention/chunk_run.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kThreads = 128;

// Shared memory: what outlives the tiles, then the tiles, in whose place ChunkScratch's triangles come.
template <class T, int kKeys>
struct ChannelTiles {
  static constexpr int kPitch = pitch_of(kKeys), kSumPitch = kKeys + 4;
  T k[kChunk][kPitch], q[kChunk][kPitch];
  T key_to_block_end[kChunk][kPitch];  // k e^(b of its 16 rows' last - b)
  float b[kChunk][kSumPitch];          // sums of log gates
};
template <class T, int kKeys>
struct ChannelScratch {
  float diagonal[4][16][16];  // k k^T within the blocks on the diagonal
  ChunkScratch chunk;
  static constexpr int kTilesAt = static_cast<int>(offsetof(ChunkScratch, lower));
  static constexpr size_t kBytes = sizeof(diagonal) + (sizeof(ChunkScratch) > kTilesAt + sizeof(ChannelTiles<T, kKeys>)
                                                           ? sizeof(ChunkScratch)
                                                           : kTilesAt + sizeof(ChannelTiles<T, kKeys>));
};

// The sums of log gates of one channel, which this thread has. Rows behind `count` have gate 0.
template <class Tiles>
CUL_DEVICE_FN void sum_gates(const Params& p, const ChunkSpan& chunk, int64_t head, int channel, Tiles& tiles) {
  constexpr int kAhead = 8;
  float sum = 0;
  if (channel >= p.key_dim) {
    for (int t = 0; t < kChunk; ++t) tiles.b[t][channel] = 0;
    return;
  }
  const LogGate<true> gate(p, head, channel);
  const int64_t at = chunk.sequence.batch * p.gate.batch + (chunk.sequence.begin + chunk.begin) * p.gate.token + head * p.gate.head + channel;
  for (int begin = 0; begin < kChunk; begin += kAhead) {
    float raw[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      raw[i] = begin + i < chunk.count ? load_one(gate_type(p), p.gate.data, at + (begin + i) * p.gate.token) : 0.0f;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i < chunk.count) sum += gate(raw[i]);
      tiles.b[begin + i][channel] = sum;
    }
  }
}

// q and k with their decay, for the second kernel; keys up to the end of their 16 rows, for this one.
template <class T, int kKeys>
CUL_DEVICE_FN void decay_operands(const Params& p, const ChunkLayout& layout, const ChunkScratch& s, ChannelTiles<T, kKeys>& tiles,
                                  unsigned char* record, int thread) {
  for (int i = thread; i < kChunk * (kKeys / 8); i += kThreads) {
    const int row = i / (kKeys / 8), column = i % (kKeys / 8) * 8;
    const Vector<T, 8> k = load_vector<8>(&tiles.k[row][column]), q = load_vector<8>(&tiles.q[row][column]);
    Vector<T, 8> query, gain, read, to_end;
    const float k_norm = s.k_norm[row], q_factor = p.scale * s.q_norm[row];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float b = tiles.b[row][column + j], key = to_float(k[j]) * k_norm, decay = __expf(b);
      query[j] = from_float<T>(to_float(q[j]) * q_factor * decay);
      gain[j] = from_float<T>(key * __expf(tiles.b[kChunk - 1][column + j] - b));
      read[j] = from_float<T>(key * decay);
      to_end[j] = from_float<T>(key * __expf(tiles.b[row | 15][column + j] - b));
    }
    const int64_t at = (int64_t{row} * kKeys + column) * 2;
    store_vector(reinterpret_cast<T*>(record + layout.queries_at() + at), query);
    store_vector(reinterpret_cast<T*>(record + layout.gains_at() + at), gain);
    if (layout.delta) store_vector(reinterpret_cast<T*>(record + layout.keys_at() + at), read);
    store_vector(&tiles.key_to_block_end[row][column], to_end);
  }
  for (int i = thread; i < kKeys; i += kThreads)
    reinterpret_cast<float*>(record + layout.decay_at())[i] = __expf(tiles.b[kChunk - 1][i]);
  for (int i = thread; i < 3 * kChunk; i += kThreads) reinterpret_cast<float*>(record + layout.factors_at())[i] = 1.0f;
}

// The products of this warp's 16 rows with those of block `block` above them: both decays are at most 1, one from the block's last row
// to the row, one from the key to that last row.
template <class T, int kKeys>
CUL_DEVICE_FN void products_with_block(const ChannelTiles<T, kKeys>& tiles, int warp, int block, int lane, float (&kk)[2][4], float (&qk)[2][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int i = 0; i < 4; ++i) kk[half][i] = qk[half][i] = 0;
#pragma unroll 2
  for (int step = 0; step < kKeys; step += 16) {
    uint32_t ak[4], aq[4], b[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 16 * warp + lane / 4 + i % 2 * 8, column = step + lane % 4 * 2 + i / 2 * 8;
      const float2 at = *reinterpret_cast<const float2*>(&tiles.b[row][column]);
      const float2 end = *reinterpret_cast<const float2*>(&tiles.b[16 * block + 15][column]);
      const float e0 = __expf(at.x - end.x), e1 = __expf(at.y - end.y);
      const uint32_t k = *reinterpret_cast<const uint32_t*>(&tiles.k[row][column]);
      const uint32_t q = *reinterpret_cast<const uint32_t*>(&tiles.q[row][column]);
      ak[i] = pack2<T>(low_float<T>(k) * e0, high_float<T>(k) * e1);
      aq[i] = pack2<T>(low_float<T>(q) * e0, high_float<T>(q) * e1);
    }
    ldmatrix_x4(b, shared_address(&tiles.key_to_block_end[16 * block + pair_row(lane)][step + pair_column(lane)]));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      mma_m16n8k16<T>(kk[half], ak, b[2 * half], b[2 * half + 1]);
      mma_m16n8k16<T>(qk[half], aq, b[2 * half], b[2 * half + 1]);
    }
  }
}

// The block on the diagonal, exactly: decays there may be as strong as they like. A lane has kKeys / 32 channels and, of each, the keys of
// the rows so far, decayed to the present row.
template <class T, int kKeys>
CUL_DEVICE_FN void products_in_block(const Params& p, const ChannelTiles<T, kKeys>& tiles, ChunkScratch& s, float (&diagonal)[16][16],
                                     int warp, int lane, int count) {
  constexpr int kChannels = kKeys / 32;
  float decayed[16][kChannels], last[kChannels];
#pragma unroll
  for (int j = 0; j < 16; ++j)
#pragma unroll
    for (int c = 0; c < kChannels; ++c) decayed[j][c] = 0;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) last[c] = tiles.b[16 * warp][kChannels * lane + c];
  for (int i = 0; i < 16; ++i) {
    const int row = 16 * warp + i;
    const Vector<T, kChannels> k = load_vector<kChannels>(&tiles.k[row][kChannels * lane]);
    const Vector<T, kChannels> q = load_vector<kChannels>(&tiles.q[row][kChannels * lane]);
    const Vector<float, kChannels> b = load_vector<kChannels>(&tiles.b[row][kChannels * lane]);
    float x[32];
#pragma unroll
    for (int j = 0; j < 32; ++j) x[j] = 0;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const float e = __expf(b[c] - last[c]), key = to_float(k[c]), query = to_float(q[c]);
      last[c] = b[c];
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        decayed[j][c] = j == i ? key : decayed[j][c] * e;
        x[2 * j] = fmaf(key, decayed[j][c], x[2 * j]);
        x[2 * j + 1] = fmaf(query, decayed[j][c], x[2 * j + 1]);
      }
    }
    float x16[16], x8[8], x4[4], x2[2], sum[1];
    fold_lanes<16>(x, x16, lane);
    fold_lanes<8>(x16, x8, lane);
    fold_lanes<4>(x8, x4, lane);
    fold_lanes<2>(x4, x2, lane);
    fold_lanes<1>(x2, sum, lane);
    const int j = lane / 2;
    const bool inside = row < count;
    if (lane % 2) {
      const float score = inside && j <= i ? p.scale * s.q_norm[row] * s.k_norm[16 * warp + j] * sum[0] : 0.0f;
      s.scores[row][16 * warp + j] = from_float<T>(score).bits;
    } else {
      diagonal[i][j] = inside && j < i ? s.beta[row] * s.k_norm[row] * s.k_norm[16 * warp + j] * sum[0] : 0.0f;
    }
  }
}

// Computes: of a chunk: b = cumsum g by channel; P = tril(scale q k^T), M = (I + tril(beta k k^T, -1))^-1 diag(beta), every product's terms
//           decayed by e^(b_i - b_j); q e^b, k e^b, k e^(b_C - b)
// Shapes:   64 tokens, K <= kKeys; a record of chunk_layout.h
// Layouts:  q, k, gates any strides; records dense
// Tiles:    a block has a chunk and a value head; 4 warps, each 16 rows
// Shared:   14 KB, and q, k, k decayed [64][K + 8], b f32 [64][K + 4]; then the triangles in their place
// Order:    blocks below the diagonal in k order of mma; within the diagonal's blocks a fixed tree over lanes. Row i depends on rows up to i
// Numerics: no exponent is above 0; blocks below the diagonal have operands rounded once, those on it are f32; substitution in f32
// Needs:    sm_80. Limit: bytes: README.md
// Source:   Kimi team, arXiv:2510.26692; Yang et al., arXiv:2312.06635 (sub-chunks)
template <class T, int kKeys>
__global__ void __launch_bounds__(kThreads) prepare_channel_kernel(Params p, ChunkLayout layout, unsigned char* records, bool aligned) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  auto& all = *reinterpret_cast<ChannelScratch<T, kKeys>*>(shared);
  ChunkScratch& s = all.chunk;
  auto& tiles = *reinterpret_cast<ChannelTiles<T, kKeys>*>(s.lower);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int64_t slot = divide(blockIdx.x, p.value_heads), head = blockIdx.x - slot * p.value_heads;
  const ChunkSpan chunk = chunk_of_slot(p, slot);
  if (chunk.count == 0) return;
  const int64_t key_head = divide(head, divide(p.value_heads, p.key_heads));
  const int64_t batch = chunk.sequence.batch, token = chunk.sequence.begin + chunk.begin;
  unsigned char* const record = records + blockIdx.x * layout.record_bytes();

  copy_tokens(&tiles.k[0][0], head_row<const T>(p.k, batch, token, key_head), p.k.token, chunk.count, kKeys, p.key_dim, aligned, thread, kThreads);
  copy_tokens(&tiles.q[0][0], head_row<const T>(p.q, batch, token, key_head), p.q.token, chunk.count, kKeys, p.key_dim, aligned, thread, kThreads);
  cp_async_commit();
  if (thread < kChunk)
    s.beta[thread] = layout.delta && thread < chunk.count ? *head_row<const float>(p.beta, batch, token + thread, head) : 0.0f;
  for (int channel = thread; channel < kKeys; channel += kThreads) sum_gates(p, chunk, head, channel, tiles);
  cp_async_wait<0>();
  __syncthreads();
  if (thread < kChunk)
    s.k_norm[thread] = inverse_norm(tiles.k[thread], kKeys, p.l2norm);
  else
    s.q_norm[thread - kChunk] = inverse_norm(tiles.q[thread - kChunk], kKeys, p.l2norm);
  __syncthreads();
  decay_operands<T, kKeys>(p, layout, s, tiles, record, thread);
  __syncthreads();

  float kk[3][2][4], qk[3][2][4];
#pragma unroll
  for (int block = 0; block < 3; ++block)
    if (block < warp) products_with_block<T, kKeys>(tiles, warp, block, lane, kk[block], qk[block]);
  products_in_block<T, kKeys>(p, tiles, s, all.diagonal[warp], warp, lane, chunk.count);
  __syncthreads();  // the tiles are done with

#pragma unroll
  for (int block = 0; block < 3; ++block) {
    if (block >= warp) break;
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const int row = 16 * warp + lane / 4 + i / 2 * 8, column = 16 * block + 8 * half + lane % 4 * 2;
        const float q_factor = row < chunk.count ? p.scale * s.q_norm[row] : 0.0f;
        *reinterpret_cast<uint32_t*>(&s.scores[row][column]) = pack2<T>(q_factor * qk[block][half][i], q_factor * qk[block][half][i + 1]);
        const float k_factor = row < chunk.count ? s.beta[row] * s.k_norm[row] : 0.0f;
        s.lower[column][row] = k_factor * kk[block][half][i];
        s.lower[column + 1][row] = k_factor * kk[block][half][i + 1];
      }
  }
  for (int i = lane; i < 256; i += 32) s.lower[16 * warp + i / 16][16 * warp + i % 16] = all.diagonal[warp][i % 16][i / 16];
  __syncthreads();
  if (layout.delta && thread < kChunk) invert_column(s, thread);
  __syncthreads();
  store_triangles<T>(s, layout, record, thread, kThreads);
}

template <class T, int kKeys>
void launch_keys(const Params& p, NativeStream stream) {
  const ChunkLayout& layout = p.plan.chunks;
  const bool aligned = p.q.batch % 8 == 0 && p.q.token % 8 == 0 && p.q.head % 8 == 0 && p.k.batch % 8 == 0 && p.k.token % 8 == 0 &&
                       p.k.head % 8 == 0;
  launch(prepare_channel_kernel<T, kKeys>, dim3(static_cast<unsigned>(layout.slots * p.value_heads)), dim3(kThreads),
         ChannelScratch<T, kKeys>::kBytes, stream, p, layout, static_cast<unsigned char*>(p.plan.workspace), aligned);
}

}  // namespace

void prepare_channel_chunks(const Params& p, NativeStream stream) {
  const bool wide = p.plan.chunks.keys == 128;
  if (p.dtype == DType::f16)
    wide ? launch_keys<half_t, 128>(p, stream) : launch_keys<half_t, 64>(p, stream);
  else
    wide ? launch_keys<bfloat16_t, 128>(p, stream) : launch_keys<bfloat16_t, 64>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS

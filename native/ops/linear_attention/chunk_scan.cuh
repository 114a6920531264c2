// The second kernel of the chunkwise form, chunk by chunk: tiles, and what one chunk does to 16 rows of the state.
#pragma once
#include "ops/linear_attention/chunk_item.cuh"

namespace culebra::CUL_DEVICE_NS {

// A record's bytes as they are; a multiple of 16.
CUL_DEVICE_FN void copy_bytes(unsigned char* to, const unsigned char* from, int bytes, int thread, int threads) {
#pragma unroll 1
  for (int i = thread * 16; i < bytes; i += threads * 16) cp_async_l2(shared_address(to + i), from + i);
}
// The blocks of a 64 x 64 matrix on and below the diagonal.
CUL_DEVICE_FN void copy_triangle(unsigned char* to, const unsigned char* from, int thread, int threads) {
#pragma unroll 1
  for (int i = thread; i < kChunk * 8; i += threads) {
    const int row = i / 8, column = i % 8 * 8;
    if (column <= row / 16 * 16 + 15)
      cp_async_l2(shared_address(to + (row * kChunkPitch + column) * 2), from + (row * kChunk + column) * 2);
  }
}

template <class T>
CUL_DEVICE_FN void copy_chunk(const RecurrenceParams& p, const ScanRun& run, const ScanItem& item, int64_t chunk, unsigned char* stage,
                              int thread, int threads) {
  const SequenceSpan& seq = item.seq;
  const int64_t head = item.head;
  const int count = item.count(chunk);
  const ScanTiles& t = run.tiles;
  const ChunkLayout& layout = run.layout;
  const int64_t token = seq.begin + chunk * kChunk;
  const unsigned char* const record =
      run.records + ((item.slot0 + chunk) * p.value_heads + head) * layout.record_bytes();
  T* const queries = reinterpret_cast<T*>(stage + t.queries());
  T* const gains = reinterpret_cast<T*>(stage + t.gains());
  if (layout.channel) {
    const auto dense = [&](int to, int64_t from) {
      copy_tokens(reinterpret_cast<T*>(stage + to), reinterpret_cast<const T*>(record + from), int64_t{layout.keys}, kChunk, layout.keys,
                  layout.keys, true, thread, threads);
    };
    dense(t.queries(), layout.queries_at());
    dense(t.gains(), layout.gains_at());
    if (t.own_keys) dense(t.reads(), layout.keys_at());
  } else {
    const int64_t key_head = item.key_head;
    copy_tokens(queries, head_row<const T>(p.q, seq.batch, token, key_head), p.q.token, count, layout.keys, p.key_dim, run.keys_aligned,
                thread, threads);
    copy_tokens(gains, head_row<const T>(p.k, seq.batch, token, key_head), p.k.token, count, layout.keys, p.key_dim, run.keys_aligned,
                thread, threads);
  }
  copy_triangle(stage + t.scores(), record + layout.scores_at(), thread, threads);
  if (t.delta) copy_triangle(stage + t.inverse(0), record + layout.inverse_at(0), thread, threads);
  if (t.split) copy_triangle(stage + t.inverse(1), record + layout.inverse_at(1), thread, threads);
  copy_tokens(reinterpret_cast<T*>(stage + t.v()), head_row<const T>(p.v, seq.batch, token, head) + item.first_row, p.v.token, count,
              t.values, item.columns(p), run.v_aligned, thread, threads);
  copy_bytes(stage + t.factors(), record + layout.factors_at(), 3 * kChunk * 4 + layout.keys * 4, thread, threads);
  cp_async_commit();
}

// x[16 rows of the state][64 tokens] = state tile^T.
template <class T, int kKeys>
CUL_DEVICE_FN void read_state(const float (&s)[kKeys / 8][4], const T* tile, int lane, float (&x)[8][4]) {
#pragma unroll
  for (int j = 0; j < 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) x[j][i] = 0;
  // One address and constants beside it: addresses of their own cost registers.
  const uint32_t at = shared_address(tile + pair_row(lane) * pitch_of(kKeys) + pair_column(lane));
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    uint32_t a[4];
    operand_of<T>(s[2 * step], s[2 * step + 1], a);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      uint32_t b[4];
      ldmatrix_x4(b, at + static_cast<uint32_t>((16 * pair * pitch_of(kKeys) + 16 * step) * 2));
      mma_m16n8k16<T>(x[2 * pair], a, b[0], b[1]);
      mma_m16n8k16<T>(x[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

// y[rows][i] += sum over j <= i of x[rows][j] lower[i][j].
template <class T>
CUL_DEVICE_FN void times_triangle(const uint32_t (&x)[4][4], const T* lower, int lane, float (&y)[8][4]) {
  const uint32_t at = shared_address(lower + pair_row(lane) * kChunkPitch + pair_column(lane));
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int pair = step; pair < 4; ++pair) {
      uint32_t b[4];
      ldmatrix_x4(b, at + static_cast<uint32_t>((16 * pair * kChunkPitch + 16 * step) * 2));
      mma_m16n8k16<T>(y[2 * pair], x[step], b[0], b[1]);
      mma_m16n8k16<T>(y[2 * pair + 1], x[step], b[2], b[3]);
    }
}

// One chunk on 16 rows of the state. Output, where asked for, takes the place of v.
template <class T, int kKeys, bool kOutput>
CUL_DEVICE_FN void run_chunk(const ScanTiles& t, unsigned char* stage, int warp, int lane, float (&s)[kKeys / 8][4]) {
  const float* const factors = reinterpret_cast<const float*>(stage + t.factors()) + lane % 4 * 2;
  T* const v = reinterpret_cast<T*>(stage + t.v()) + 16 * warp;
  const int v_pitch = t.values + 8;

  float r[8][4];
  if (t.delta) read_state<T, kKeys>(s, reinterpret_cast<const T*>(stage + t.reads()), lane, r);
  // v of this warp's rows as operand A: [rows][tokens].
  uint32_t values[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step)
    ldmatrix_x4_trans(values[step], shared_address(v + (16 * step + lane / 16 * 8 + lane % 8) * v_pitch + lane / 8 % 2 * 8));

  if (t.delta) {
    uint32_t x[4][4];  // v - e^b S k
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float (&sums)[4] = r[2 * step + half];
        const float2 f = *reinterpret_cast<const float2*>(factors + 16 * step + 8 * half);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const uint32_t pair = values[step][2 * half + i];
          sums[2 * i] = fmaf(-f.x, sums[2 * i], low_float<T>(pair));
          sums[2 * i + 1] = fmaf(-f.y, sums[2 * i + 1], high_float<T>(pair));
        }
      }
      operand_of<T>(r[2 * step], r[2 * step + 1], x[step]);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) r[j][i] = 0;
    times_triangle<T>(x, reinterpret_cast<const T*>(stage + t.inverse(0)), lane, r);
    if (t.split) times_triangle<T>(x, reinterpret_cast<const T*>(stage + t.inverse(1)), lane, r);
#pragma unroll
    for (int step = 0; step < 4; ++step) operand_of<T>(r[2 * step], r[2 * step + 1], values[step]);
  } else {
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        r[2 * step + i / 2][i % 2 * 2] = low_float<T>(values[step][i]);
        r[2 * step + i / 2][i % 2 * 2 + 1] = high_float<T>(values[step][i]);
      }
  }

  // What the state gains, before the output needs registers.
  uint32_t gained[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 f = *reinterpret_cast<const float2*>(factors + 2 * kChunk + 16 * step + 8 * half);
      float (&sums)[4] = r[2 * step + half];
      sums[0] *= f.x, sums[1] *= f.y, sums[2] *= f.x, sums[3] *= f.y;
    }
    operand_of<T>(r[2 * step], r[2 * step + 1], gained[step]);
  }

  if constexpr (kOutput) {
    float o[8][4];
    read_state<T, kKeys>(s, reinterpret_cast<const T*>(stage + t.queries()), lane, o);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float2 f = *reinterpret_cast<const float2*>(factors + kChunk + 8 * j);
      o[j][0] *= f.x, o[j][1] *= f.y, o[j][2] *= f.x, o[j][3] *= f.y;
    }
    times_triangle<T>(values, reinterpret_cast<const T*>(stage + t.scores()), lane, o);
    // o in the place of v: both are this warp's alone.
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) v[(8 * j + lane % 4 * 2 + i % 2) * v_pitch + lane / 4 + i / 2 * 8] = from_float<T>(o[j][i]);
    __syncwarp();
  }

  const uint32_t gains_at =
      shared_address(reinterpret_cast<const T*>(stage + t.gains()) + lane % 16 * pitch_of(kKeys) + lane / 16 * 8);
  // The state: its decay, then what the chunk adds.
  const float* const decay = reinterpret_cast<const float*>(stage + t.decay()) + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
    const float2 e = *reinterpret_cast<const float2*>(decay + 8 * j);
    s[j][0] *= e.x, s[j][1] *= e.y, s[j][2] *= e.x, s[j][3] *= e.y;
  }
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int pair = 0; pair < kKeys / 16; ++pair) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, gains_at + static_cast<uint32_t>((16 * step * pitch_of(kKeys) + 16 * pair) * 2));
      mma_m16n8k16<T>(s[2 * pair], gained[step], b[0], b[1]);
      mma_m16n8k16<T>(s[2 * pair + 1], gained[step], b[2], b[3]);
    }
  }
}

}  // namespace culebra::CUL_DEVICE_NS

// The inverse of a unit lower triangular matrix, 64 x 64 in f32.
#pragma once
#include "ops/linear_attention/chunk.cuh"

namespace culebra::CUL_DEVICE_NS {

// What the preparation of a chunk keeps in shared memory beside its q and k.
struct ChunkScratch {
  static constexpr int kPitch = kChunk + 4;  // f32
  uint16_t scores[kChunk][kChunkPitch];  // of q's type
  float log_decay[kChunk];               // sums of log gates, scalar decay
  float beta[kChunk], q_norm[kChunk], k_norm[kChunk];
  // q and k stand here before.
  float lower[kChunk][kPitch];    // column after column: lower[m][i] is row i, column m, 0 on and above the diagonal
  float inverse[kChunk][kPitch];  // row after row
};

// Column j of inverse = (I + lower)^-1 by forward substitution, 16 rows at a time: what earlier rows contribute as outer products, then
// the block on the diagonal row by row. For j = 0..63, each a thread; no thread reads another's column. A warp begins at its first
// column's rows: above them are zeros, which nobody reads.
CUL_DEVICE_FN void invert_column(ChunkScratch& s, int j) {
  const int first = j / 32 * 32;
  for (int block = first; block < kChunk; block += 16) {
    float x[16];
#pragma unroll
    for (int r = 0; r < 16; ++r) x[r] = block + r == j ? 1.0f : 0.0f;
    for (int m = first; m < block; ++m) {
      const float known = s.inverse[m][j];
#pragma unroll
      for (int r = 0; r < 16; r += 4) {
        const float4 a = *reinterpret_cast<const float4*>(&s.lower[m][block + r]);
        x[r] = fmaf(-a.x, known, x[r]);
        x[r + 1] = fmaf(-a.y, known, x[r + 1]);
        x[r + 2] = fmaf(-a.z, known, x[r + 2]);
        x[r + 3] = fmaf(-a.w, known, x[r + 3]);
      }
    }
#pragma unroll
    for (int m = 0; m < 16; ++m) {
      s.inverse[block + m][j] = x[m];
#pragma unroll
      for (int r = m / 4 * 4; r < 16; r += 4) {
        const float4 a = *reinterpret_cast<const float4*>(&s.lower[block + m][block + r]);
        if (r > m) x[r] = fmaf(-a.x, x[m], x[r]);
        if (r + 1 > m) x[r + 1] = fmaf(-a.y, x[m], x[r + 1]);
        if (r + 2 > m) x[r + 2] = fmaf(-a.z, x[m], x[r + 2]);
        if (r + 3 > m) x[r + 3] = fmaf(-a.w, x[m], x[r + 3]);
      }
    }
  }
}

// scores and inverse diag(beta) into the record, blocks on and below the diagonal.
template <class T>
CUL_DEVICE_FN void store_triangles(const ChunkScratch& s, const ChunkLayout& layout, unsigned char* record, int thread, int threads) {
  for (int i = thread; i < kChunk * (kChunk / 8); i += threads) {
    const int row = i / 8, column = i % 8 * 8;
    if (column > row / 16 * 16 + 15) continue;
    const int64_t at = (row * kChunk + column) * 2;
    *reinterpret_cast<uint4*>(record + layout.scores_at() + at) = *reinterpret_cast<const uint4*>(&s.scores[row][column]);
    if (!layout.delta) continue;
    uint32_t high[4], low[4];
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      const int c = column + j;
      const float a = c <= row ? s.inverse[row][c] * s.beta[c] : 0.0f;
      const float b = c + 1 <= row ? s.inverse[row][c + 1] * s.beta[c + 1] : 0.0f;
      split_two<T>(a, b, high[j / 2], low[j / 2]);
    }
    *reinterpret_cast<uint4*>(record + layout.inverse_at(0) + at) = make_uint4(high[0], high[1], high[2], high[3]);
    if (layout.split) *reinterpret_cast<uint4*>(record + layout.inverse_at(1) + at) = make_uint4(low[0], low[1], low[2], low[3]);
  }
}

}  // namespace culebra::CUL_DEVICE_NS

// The chunkwise form of the recurrences: which sequences take it, and what its first kernel leaves in the workspace for its
// second. Maths: README.md.
#pragma once
#include <cstdint>

#include "device/numeric.h"

namespace culebra {

inline constexpr int kChunk = 64;  // tokens
inline constexpr int64_t kMaxChunkKeys = 128;

// Of one chunk and value head: a record of record_bytes, its parts behind one another. Matrices are dense, [64][columns], of q's type; of
// those with 64 columns only the 16 x 16 blocks on and below the diagonal are defined.
struct ChunkLayout {
  int32_t keys = 0;         // columns of the key side: 64 or 128, beyond K zeros
  bool delta = false;       // there is a triangular inverse
  bool split = false;       // it has a second part, which holds what rounding the first took away
  bool channel = false;     // decay of channels: q and k with their decay applied
  int64_t tokens = 0;       // T
  int64_t sequences = 0;
  bool packed = false;
  int64_t slots = 0;

  // Factors of rows: of S k, of S q, of what the state gains; then the chunk's decay of each channel. f32.
  CUL_NUMERIC int64_t factors_at() const { return 0; }
  CUL_NUMERIC int64_t decay_at() const { return 3 * kChunk * 4; }
  CUL_NUMERIC int64_t scores_at() const { return decay_at() + keys * 4; }
  CUL_NUMERIC int64_t inverse_at(int part) const { return scores_at() + (1 + part) * kChunk * kChunk * 2; }
  CUL_NUMERIC int64_t queries_at() const { return inverse_at(delta ? split ? 2 : 1 : 0); }
  CUL_NUMERIC int64_t gains_at() const { return queries_at() + int64_t{kChunk} * keys * 2; }  // keys as the state gains them
  CUL_NUMERIC int64_t keys_at() const { return gains_at() + int64_t{kChunk} * keys * 2; }     // as they read it
  CUL_NUMERIC int64_t record_bytes() const {
    return queries_at() + (channel ? int64_t{kChunk} * keys * 2 * (delta ? 3 : 2) : 0);
  }

  // Slots of a packed row: sequence n's chunks stand from cu_seqlens[n] / 64 + n on, which nobody need sum up.
  static int64_t slots_of(int64_t tokens, int64_t sequences, bool packed) {
    return packed ? tokens / kChunk + sequences + 1 : sequences * ((tokens + kChunk - 1) / kChunk);
  }
};

}  // namespace culebra

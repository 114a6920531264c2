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
  int64_t slots = 0;        // of chunks

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

  // Slots of runs of `unit` tokens: chunk.cuh says which run has which.
  static int64_t slots_of(int64_t tokens, int64_t sequences, bool packed, int64_t unit) {
    return packed ? tokens / unit + sequences + 1 : sequences * ((tokens + unit - 1) / unit);
  }
};

// A chunk in the second kernel's shared memory, `values` columns of v. Offsets in bytes; rows are 16 bytes longer than what they hold.
struct ScanTiles {
  static constexpr int kTriangleBytes = kChunk * (kChunk + 8) * 2;
  int keys = 0, values = 0;
  bool delta = false, split = false;
  bool own_keys = false;  // keys that read the state are not those that it gains

  CUL_NUMERIC int key_bytes() const { return kChunk * (keys + 8) * 2; }
  CUL_NUMERIC int queries() const { return 0; }
  CUL_NUMERIC int gains() const { return key_bytes(); }
  CUL_NUMERIC int reads() const { return own_keys ? 2 * key_bytes() : gains(); }
  CUL_NUMERIC int scores() const { return (own_keys ? 3 : 2) * key_bytes(); }
  CUL_NUMERIC int inverse(int part) const { return scores() + (1 + part) * kTriangleBytes; }
  CUL_NUMERIC int v() const { return inverse(delta ? split ? 2 : 1 : 0); }
  CUL_NUMERIC int factors() const { return v() + kChunk * (values + 8) * 2; }
  CUL_NUMERIC int decay() const { return factors() + 3 * kChunk * 4; }
  CUL_NUMERIC int bytes() const { return decay() + keys * 4; }
};


// How the second kernel is launched. Where sequences are cut in segments, it runs twice: for what each segment adds and does to a state,
// and, when those are combined, for the outputs.
struct ScanPlan {
  int warps = 4;           // 16 rows of the state each
  int stages = 2;          // chunks in shared memory at once
  ScanTiles tiles;
  int64_t slices = 1;      // blocks of rows a head
  int64_t segment_chunks = 0;  // 0: sequences are not cut
  int64_t segments = 0;        // slots of segments
  int64_t partials_at = 0;     // in the workspace: f32 [segments][HV][V, and K with the delta rule][keys]
};

}  // namespace culebra

// The tiled form of the plain update with one decay a token and head: states at the ends of spans of tokens first, then all outputs at once.
// For K and V beyond what the registers of a multiprocessor hold of a state. What lies in its workspace, and its launches; maths: README.md.
#pragma once
#include <cstdint>

#include "device/numeric.h"

namespace culebra {

inline constexpr int kSpan = 256;          // tokens between states in memory; a multiple of kChunk
inline constexpr int kQueryRows = 128;     // tokens that a block of the second kernel makes outputs of; kSpan is a multiple

// Of one chunk of 64 tokens and value head, f32: what gates and factors mean there. Rows behind a sequence's end have factors of 0.
struct TiledRecord {
  float sums[64];     // b: of log gates up to this token
  float gains[64];    // e^(b_C - b) times the key's factor: how the state behind the chunk has the token
  float rows[64];     // scale e^b times the query's factor: how the token reads the state before the chunk
  float keys[64];     // the key's factor
  float queries[64];  // scale times the query's factor
  float total;        // b_C
  float decay;        // e^b_C
  float unused[2];
};

struct TiledPlan {
  int64_t chunks = 0, spans = 0, blocks = 0;  // slots of runs of 64, kSpan and kQueryRows tokens
  int64_t states_at = 0;                      // in the workspace, behind the records: [spans][HV][V][keys] of q's type
  int64_t bytes = 0;
  int32_t keys = 0;                           // columns of states in memory: K to the next multiple of 64, zeros beyond K
  int32_t state_warps = 8;                    // 32 of a tile's 128 rows by 64 columns each
  int32_t state_stages = 3, output_stages = 3;

  static constexpr int kValueTile = 256;  // of outputs, columns a block
  static constexpr int kStageBytes = kValueTile * 64 * 2;
  // Bytes of shared memory.
  static constexpr int kStatePitch = 64 + 4;  // f32, of rows on their way to memory
  CUL_NUMERIC int state_bytes(int stages) const { return stages * state_stage_bytes() + state_warps * 16 * kStatePitch * 4; }
  CUL_NUMERIC int state_stage_bytes() const { return 64 * (128 + state_warps * 16) * 2 + 64 * 4 + 16; }
  CUL_NUMERIC int output_bytes(int stages) const {
    return kQueryRows * (keys + 64) * 2 + stages * kStageBytes + kSpan / 64 * static_cast<int>(sizeof(TiledRecord));
  }
};

}  // namespace culebra

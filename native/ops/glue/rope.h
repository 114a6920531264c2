// Rotary embedding.
#pragma once
#include "culebra/glue.h"
#include "ops/glue/rows.h"

namespace culebra {

struct RopeParams {
  DType dtype;
  bool interleaved, validate;
  bool aligned;  // packs of x and y, and of the halves of a head, are 16-byte aligned
  int64_t tokens, heads, channels;
  int64_t turned;     // R: leading channels that turn
  int64_t positions_in_table;
  Rows x, y;          // rows are tokens
  int64_t x_head_stride, y_head_stride;
  Rows cos, sin;      // f32, rows are positions
  const int64_t* positions;

  // A token whose position lies outside the table keeps its channels as they are.
  CUL_NUMERIC bool in_table(int64_t position) const { return position >= 0 && position < positions_in_table; }

  // Positions (abi/indices.h).
  int64_t index_items() const { return tokens; }
  CUL_NUMERIC bool valid(int64_t t) const { return positions[t] == -1 || in_table(positions[t]); }
  std::string invalid_text(int64_t t) const;
};

RopeParams check_rope(const Call& call, const cul_rope_args& args);

CUL_DECLARE_COLUMNS(rope, RopeParams)

}  // namespace culebra

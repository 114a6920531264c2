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
};

RopeParams check_rope(const Call& call, const cul_rope_args& args);
// CUL_OP_VALIDATE on the host: throws DeviceError for a position outside the table other than -1.
void validate_positions(const RopeParams& p);

CUL_DECLARE_COLUMNS(rope, RopeParams)

}  // namespace culebra

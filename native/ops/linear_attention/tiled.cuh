// What the kernels of the tiled form share: tiles of 64 columns in shared memory, and how they are filled.
#pragma once
#include "ops/linear_attention/chunk.cuh"
#include "ops/linear_attention/tiled_layout.h"

namespace culebra::CUL_DEVICE_NS {

// A tile: rows of 128 bytes, 64 elements, whose 16-byte pieces are permuted so that the eight rows of an ldmatrix lie in different banks. A
// matrix of more columns is tiles behind one another.
CUL_DEVICE_FN uint32_t piece_at(uint32_t tile, int row, int piece) {
  return tile + static_cast<uint32_t>(row * 128 + (piece ^ (row & 7)) * 16);
}

// `rows` rows of `tiles` tiles, zeros where there are no rows or columns. rows is a multiple of threads / 8.
template <class T>
CUL_DEVICE_FN void copy_tiles(unsigned char* to, const T* from, int64_t stride, int rows, int tiles, int64_t present_rows, int64_t columns,
                              bool aligned, int thread, int threads) {
  const int piece = thread % 8;
  for (int tile = 0; tile < tiles; ++tile) {
    const int64_t column = tile * 64 + piece * 8;
    for (int row = thread / 8; row < rows; row += threads / 8) {
      T* const cell = reinterpret_cast<T*>(to + (tile * rows + row) * 128 + (piece ^ (row & 7)) * 16);
      copy_piece(cell, from + row * stride + column, row < present_rows && column < columns, aligned);
    }
  }
}

CUL_DEVICE_FN const TiledRecord* record_at(const RecurrenceParams& p, int64_t slot, int64_t head) {
  return static_cast<const TiledRecord*>(p.plan.workspace) + slot * p.value_heads + head;
}
// The state before a span, [V][keys].
template <class T>
CUL_DEVICE_FN T* span_state(const RecurrenceParams& p, int64_t slot, int64_t head) {
  const TiledPlan& plan = p.plan.tiles;
  return reinterpret_cast<T*>(static_cast<unsigned char*>(p.plan.workspace) + plan.states_at) +
         (slot * p.value_heads + head) * p.value_dim * plan.keys;
}

inline bool rows_aligned(const RecurrenceParams::Heads& x) { return x.batch % 8 == 0 && x.token % 8 == 0 && x.head % 8 == 0; }

}  // namespace culebra::CUL_DEVICE_NS

// What the two kernels of the chunkwise form share: which chunk a block has, tiles in shared memory, the record of a chunk.
#pragma once
#include "device/async_copy.h"
#include "device/barrier.h"
#include "device/mma.h"
#include "device/vector.h"
#include "ops/linear_attention/chunk_layout.h"
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {

// Elements between rows of a tile with `columns` columns: 16 bytes more than they have, so that the eight rows of an ldmatrix lie in
// different banks.
CUL_DEVICE_FN constexpr int pitch_of(int columns) { return columns + 8; }
constexpr int kChunkPitch = kChunk + 8;

// Slots of runs of `unit` tokens (chunks, segments), numbered over all sequences: those of sequence n of a packed row stand from
// cu_seqlens[n] / unit + n on, as many as it may need and no more than the next one's begin.
CUL_DEVICE_FN int64_t first_slot(const Sequences& s, int64_t n, int64_t unit) {
  return s.cu_seqlens ? divide(s.cu_seqlens[n], unit) + n : n * divide(s.tokens + unit - 1, unit);
}
CUL_DEVICE_FN int64_t sequence_of_slot(const Sequences& s, int64_t slot, int64_t unit) {
  if (!s.cu_seqlens) return divide(slot, divide(s.tokens + unit - 1, unit));
  int64_t low = 0, high = s.count;  // the last one whose slots begin at or before this one
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (first_slot(s, middle, unit) <= slot)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// The chunk of a slot.
struct ChunkSpan {
  SequenceSpan sequence;
  int64_t begin;  // its first token, counted in the sequence
  int count;      // of its tokens; 0: the slot is empty
};

// Every chunk of sequences that are not skipped.
CUL_DEVICE_FN ChunkSpan span_of_slot(const Sequences& s, int64_t slot) {
  const int64_t n = sequence_of_slot(s, slot, kChunk);
  ChunkSpan span{sequence_at(s, n), (slot - first_slot(s, n, kChunk)) * kChunk, 0};
  const int64_t left = span.sequence.length - span.begin;
  span.count = span.sequence.skipped || left <= 0 ? 0 : left < kChunk ? static_cast<int>(left) : kChunk;
  return span;
}
// Those of sequences that go in chunks.
CUL_DEVICE_FN ChunkSpan chunk_of_slot(const RecurrenceParams& p, int64_t slot) {
  ChunkSpan span = span_of_slot(p.sequences, slot);
  if (span.sequence.length <= p.plan.recurrent_tokens) span.count = 0;
  return span;
}

// Eight elements into shared memory, zeros where there are none. Unaligned rows go through registers.
template <class T>
CUL_DEVICE_FN void copy_piece(T* to, const T* from, bool present, bool aligned) {
  if (aligned) {
    cp_async_l2(shared_address(to), present ? from : nullptr, present);
  } else {
    Vector<T, 8> piece;
#pragma unroll
    for (int i = 0; i < 8; ++i) piece[i] = present ? from[i] : from_float<T>(0.0f);
    store_vector(to, piece);
  }
}
// A tile [64][pitch_of(columns)] of `count` tokens' rows of a head: `present` of the columns exist.
template <class T>
CUL_DEVICE_FN void copy_tokens(T* tile, const T* rows, int64_t stride, int count, int columns, int64_t present, bool aligned,
                               int thread, int threads) {
  const int pieces = columns / 8;
#pragma unroll 2
  for (int i = thread; i < kChunk * pieces; i += threads) {
    const int row = i / pieces, column = (i - row * pieces) * 8;
    copy_piece(tile + row * pitch_of(columns) + column, rows + row * stride + column, row < count && column < present, aligned);
  }
}

// 1 / |row| of a tile's row where rows are normalised, else 1.
template <class T>
CUL_DEVICE_FN float inverse_norm(const T* row, int columns, bool l2norm) {
  if (!l2norm) return 1.0f;
  float sum = 0;
  for (int column = 0; column < columns; column += 8) {
    const Vector<T, 8> x = load_vector<8>(row + column);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(to_float(x[i]), to_float(x[i]), sum);
  }
  return 1.0f / sqrtf(sum + kL2NormEps);
}

// The two halves of a value: `high` is its rounding, `low` what that took away.
template <class T>
CUL_DEVICE_FN void split_two(float a, float b, uint32_t& high, uint32_t& low) {
  high = pack2<T>(a, b);
  low = pack2<T>(a - low_float<T>(high), b - high_float<T>(high));
}

// Rows of b operands ([n][k], k contiguous) that lane `lane` names for ldmatrix_x4: two n tiles of 16 k.
CUL_DEVICE_FN int pair_row(int lane) { return lane / 16 * 8 + lane % 8; }
CUL_DEVICE_FN int pair_column(int lane) { return lane / 8 % 2 * 8; }

}  // namespace culebra::CUL_DEVICE_NS

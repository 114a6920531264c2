// Expert matrices [E, n, k] as they lie in the contract, and how a warp of the tile kernel fetches its 64 columns of one of them.
#pragma once
#include "ops/gemm/tile/tile_gemm.cuh"
#include "ops/moe/grouped_gemm.h"

namespace culebra::CUL_DEVICE_NS {

struct ExpertSource {
  const uint8_t* data;  // of the selected expert
  int64_t expert_bytes, row_bytes;
  const void* scales;  // (n, k / group); f8: (n / 128, k / 128)
  int64_t scale_expert, scale_row, scale_groups;
  const uint8_t* zeros;  // nibble n % 2 of (n / 2, k / group), or null: 8
  int64_t zero_expert, zero_row;
  int64_t n, row_end;    // rows of a matrix, bytes of a row
  int64_t half;          // > 0: the blocks of 64 columns from pair_blocks on begin at this row (up), those before at row 0 (gate)
  int64_t pair_blocks;
  int32_t group_shift;  // group of column k: k >> group_shift
  int32_t scales_bf16, aligned;

  CUL_DEVICE_FN void select(int64_t expert) {
    data += expert * expert_bytes;
    const int64_t scale_bytes = scales_are_f32() ? 4 : 2;
    scales = static_cast<const uint8_t*>(scales) + expert * scale_expert * scale_bytes;
    if (zeros) zeros += expert * zero_expert;
  }
  CUL_DEVICE_FN bool scales_are_f32() const { return scales_bf16 < 0; }
  // The matrix' row that a block's first column is, and the end of its half.
  CUL_DEVICE_FN int64_t first_row(int64_t block) const { return block * 64 - (half > 0 && block >= pair_blocks ? pair_blocks * 64 - half : 0); }

  // Of an int4 row in a group, and of a block of 128 x 128; 0 beyond the matrix.
  CUL_DEVICE_FN float row_scale(int64_t row, int64_t group) const {
    if (row >= n || group >= scale_groups) return 0.0f;
    const uint16_t bits = static_cast<const uint16_t*>(scales)[row * scale_row + group];
    return scales_bf16 ? to_float(bfloat16_t{bits}) : to_float(half_t{bits});
  }
  CUL_DEVICE_FN float block_scale(int64_t row, int64_t group) const {
    return row < n && group < scale_groups ? static_cast<const float*>(scales)[row / 128 * scale_row + group] : 0.0f;
  }
  CUL_DEVICE_FN int row_zero(int64_t row, int64_t group) const {
    if (!zeros || row >= n || group >= scale_groups) return 8;
    return zeros[row / 2 * zero_row + group] >> (row % 2 * 4) & 15;
  }

  // Slice `index` of kBytes bytes of each of the block's 64 rows; zeros beyond the matrix. place(row, chunk): where a chunk of 16 bytes
  // lies, in chunks.
  template <int kBytes, int kThreads, bool kReadOnce, class Place>
  CUL_DEVICE_FN void fetch_slice(unsigned char* slice, int64_t block, int index, int thread, Place place) const {
    constexpr int kChunks = kBytes / 16, kStep = kThreads / kChunks;
    static_assert(kThreads % kChunks == 0 && 64 % kStep == 0);
    const int64_t first = first_row(block), valid = n - first, at = int64_t{index} * kBytes + thread % kChunks * 16;
    const int row = thread / kChunks, chunk = thread % kChunks;
    if (aligned && (int64_t{index} + 1) * kBytes <= row_end) {
      const uint8_t* const source = data + (first + row) * row_bytes + at;
#pragma unroll
      for (int i = 0; i < 64 / kStep; ++i) {
        const bool inside = row + i * kStep < valid;  // a copy that only writes zeros still wants an aligned source
        copy_chunk<kReadOnce>(slice + place(row + i * kStep, chunk) * 16, inside ? source + i * kStep * row_bytes : data, inside);
      }
      return;
    }
#pragma unroll 1
    for (int i = row; i < 64; i += kStep) {
      Vector<uint8_t, 16> values;
#pragma unroll
      for (int j = 0; j < 16; ++j) values[j] = i < valid && at + j < row_end ? data[(first + i) * row_bytes + at + j] : uint8_t{0};
      store_vector(slice + place(i, chunk) * 16, values);
    }
  }
};

inline ExpertSource expert_source(const GroupedGemmParams& p) {
  const ExpertMatrices& b = p.b;
  const int64_t element = static_cast<int64_t>(size_of(b.dtype));
  ExpertSource s{};
  s.data = static_cast<const uint8_t*>(b.data);
  s.expert_bytes = b.expert_stride * element;
  s.row_bytes = b.row_stride * element;
  s.n = b.rows;
  s.row_end = b.storage == CUL_EXPERTS_INT4 ? b.columns / 2 : b.columns * element;
  if (p.gated()) {
    s.half = b.rows / 2;
    s.pair_blocks = (s.half + 63) / 64;
  }
  s.aligned = (s.row_bytes % 16 == 0 || b.rows <= 1) && (s.expert_bytes % 16 == 0 || b.experts <= 1);
  if (b.storage == CUL_EXPERTS_HALF) return s;
  s.scales = b.scales;
  s.scale_expert = b.scale_expert_stride;
  s.scale_row = b.scale_row_stride;
  s.scales_bf16 = b.scale_dtype == DType::f32 ? -1 : b.scale_dtype == DType::bf16;
  const int64_t group = b.storage == CUL_EXPERTS_F8 ? 128 : b.group;
  s.scale_groups = (b.columns + group - 1) / group;
  while (s.group_shift < 62 && int64_t{1} << s.group_shift < group) ++s.group_shift;
  s.zeros = b.zeros;
  s.zero_expert = b.zero_expert_stride;
  s.zero_row = b.zero_row_stride;
  return s;
}

}  // namespace culebra::CUL_DEVICE_NS

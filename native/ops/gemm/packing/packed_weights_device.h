// The steps of packing and unpacking that host loops and kernels share: one packed or checkpoint word at a time.
#pragma once
#include "ops/gemm/packing/packed_weights.h"

namespace culebra {

// The checkpoint's row of packed row j, or -1.
CUL_NUMERIC int64_t source_row(const PackParams& p, int64_t j) {
  const int64_t k = p.perm ? p.perm[j] : j;
  return k < p.checkpoint.k ? k : -1;
}
// The checkpoint's group of packed group i, or -1.
CUL_NUMERIC int64_t source_group(const PackParams& p, int64_t i) {
  const int64_t g = p.group_source ? p.group_source[i] : i;
  return g < p.checkpoint.groups ? g : -1;
}
CUL_NUMERIC int packed_zero_point(const PackParams& p, int64_t n, int64_t j) {
  const int64_t g = source_group(p, j / p.group);
  return n < p.checkpoint.n && g >= 0 ? zero_point(p.checkpoint, n, g) : zero_point_of_symmetric(p.checkpoint);
}
// What the packed matrix holds at column n, packed row j.
CUL_NUMERIC int packed_weight(const PackParams& p, int64_t n, int64_t j) {
  const int64_t k = source_row(p, j);
  return n < p.checkpoint.n && k >= 0 ? weight(p.checkpoint, n, k) : packed_zero_point(p, n, j);
}
// One scale; without a source, zeros.
CUL_NUMERIC void move_scale(int bytes, const void* from, int64_t from_at, void* to, int64_t to_at) {
  if (bytes == 1) static_cast<uint8_t*>(to)[to_at] = from ? static_cast<const uint8_t*>(from)[from_at] : uint8_t{0};
  if (bytes == 2) static_cast<uint16_t*>(to)[to_at] = from ? static_cast<const uint16_t*>(from)[from_at] : uint16_t{0};
  if (bytes == 4) static_cast<uint32_t*>(to)[to_at] = from ? static_cast<const uint32_t*>(from)[from_at] : 0u;
}
// The n-th scale and zero point of packed group i; blocks of columns have fewer scales than there are columns.
CUL_NUMERIC void pack_group_entry(const PackParams& p, int64_t i, int64_t n) {
  const Checkpoint& c = p.checkpoint;
  const int64_t g = source_group(p, i), columns = scale_columns(c, p.n_padded);
  if (n < columns) {
    const bool inside = n < scale_columns(c, c.n) && g >= 0;
    move_scale(c.scale_bytes, inside ? c.scales : nullptr, inside ? scale_offset(c, n, g) : 0, p.scales, i * columns + n);
  }
  if (p.zeros) p.zeros[i * p.n_padded + n] = static_cast<uint8_t>(packed_zero_point(p, n, i * p.group));
}

// Unpacking: the packed row and group of the checkpoint's.
CUL_NUMERIC int64_t packed_row(const UnpackParams& p, int64_t k) { return p.row_of ? p.row_of[k] : k; }
CUL_NUMERIC int64_t packed_group(const UnpackParams& p, int64_t g) { return p.group_of ? p.group_of[g] : g; }
// Entry j of the inverses; j runs over packed rows.
CUL_NUMERIC void invert_entry(const UnpackParams& p, int64_t j) {
  const PackParams& q = p.packing;
  if (source_row(q, j) >= 0) p.row_of[q.perm[j]] = static_cast<int32_t>(j);
  if (j < q.groups && q.group_source[j] >= 0 && (j == 0 || q.group_source[j - 1] != q.group_source[j]))
    p.group_of[q.group_source[j]] = static_cast<int32_t>(j);
}

// Word (or byte) (row, column) of the checkpoint's weights; Get gives the packed integer at (n, packed row).
template <class Get>
CUL_NUMERIC void unpack_weight_word(const UnpackParams& p, int64_t row, int64_t column, Get get) {
  const Checkpoint& c = p.packing.checkpoint;
  const int64_t offset = row * c.weights_stride + column;
  if (c.format == CUL_FORMAT_PLAIN) {
    static_cast<uint8_t*>(c.weights)[offset] = static_cast<uint8_t>(get(row, packed_row(p, column)) - byte_bias(c));
    return;
  }
  uint32_t word = 0;
  for (int i = 0; i < elements_per_word(c); ++i) {
    const WeightIndex at = weight_at(c, row, column, i);
    if (at.n < c.n && at.k < c.k) word |= static_cast<uint32_t>(get(at.n, packed_row(p, at.k))) << (i * c.bits);
  }
  static_cast<uint32_t*>(c.weights)[offset] = word;
}

CUL_NUMERIC void unpack_zero_word(const UnpackParams& p, int64_t row, int64_t column) {
  const PackParams& q = p.packing;
  const Checkpoint& c = q.checkpoint;
  const int64_t offset = row * c.zeros_stride + column;
  uint32_t word = 0;
  for (int i = 0; i < elements_per_word(c); ++i) {
    const ZeroIndex at = zero_at(c, row, column, i);
    if (at.n >= c.n) continue;
    const int z = q.zeros ? q.zeros[packed_group(p, at.g) * q.n_padded + at.n] : zero_point_of_symmetric(c);
    if (c.format == CUL_FORMAT_PLAIN) {
      static_cast<uint8_t*>(c.zeros)[offset] = static_cast<uint8_t>(z - byte_bias(c));
      return;
    }
    word |= static_cast<uint32_t>(encode_zero(c, z)) << (i * c.bits);
  }
  static_cast<uint32_t*>(c.zeros)[offset] = word;
}

CUL_NUMERIC void unpack_scale(const UnpackParams& p, int64_t n, int64_t g) {
  const PackParams& q = p.packing;
  const Checkpoint& c = q.checkpoint;
  move_scale(c.scale_bytes, q.scales, packed_group(p, g) * scale_columns(c, q.n_padded) + n, c.scales, scale_offset(c, n, g));
}
CUL_NUMERIC void unpack_g_idx(const UnpackParams& p, int64_t k) {
  const PackParams& q = p.packing;
  q.checkpoint.g_idx[k] = static_cast<int32_t>(q.group_source ? q.group_source[packed_row(p, k) / q.group] : k / q.checkpoint.group);
}

}  // namespace culebra

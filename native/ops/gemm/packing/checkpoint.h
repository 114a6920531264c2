// Quantized weights as checkpoints store them: which integer lies where. Index functions for host and device.
//
// bits b, per = 32 / b elements in an i32 word, element i in bits b i .. b i + b - 1 (README.md has the table):
//
//   format              weights                              zeros                      scales
//   gptq_v1, gptq_v2    [K/per, N], element = k              [G, N/per], element = n    [G, N]
//   awq                 [K, N/per], element = n interleaved  [G, N/per], interleaved    [G, N]
//   compressed_tensors  [N, K/per], element = k              [N/per, G], element = n    [N, G]
//   plain               [N, K], a byte each                  [N, G], a byte each        [N, G]
//
// Partial words round up. gptq_v1 stores z - 1, modulo 2^b. Plain i8 values are signed: 2^(b-1) less than here. Plain f8e4m3 bytes
// are moved as they are. Scaling block128: a group is 128 k, and scales [ceil(N/128), G] are shared by 128 rows.
#pragma once
#include <cstdint>

#include "culebra/gemm.h"
#include "device/numeric.h"
#include "ops/gemm/packing/packed_layout.h"

namespace culebra {

struct Checkpoint {
  int32_t format;  // CUL_FORMAT_*, AUTO resolved
  int32_t bits;
  int32_t signed_bytes;  // plain i8
  int32_t floats;        // plain f8e4m3: no zero points
  int32_t scale_bytes;   // of one scale: 1, 2 or 4
  int32_t scale_block;   // rows n that share a scale: 1 or 128
  int64_t n, k, groups;
  int64_t group;  // rows per group; k for one group over all
  void* weights;
  int64_t weights_stride;
  void* scales;  // moved, never computed with
  int64_t scales_stride;
  void* zeros;  // or null
  int64_t zeros_stride;
  int32_t* g_idx;  // [k], or null
};

struct Extent2 {
  int64_t rows, columns;
};

CUL_NUMERIC int elements_per_word(const Checkpoint& c) { return c.format == CUL_FORMAT_PLAIN ? 1 : 32 / c.bits; }
CUL_NUMERIC int zero_point_of_symmetric(const Checkpoint& c) { return c.floats ? 0 : 1 << (c.bits - 1); }
CUL_NUMERIC bool scales_by_group(const Checkpoint& c) {  // [G, N] rather than [N, G]
  return c.format != CUL_FORMAT_PLAIN && c.format != CUL_FORMAT_COMPRESSED_TENSORS;
}
CUL_NUMERIC int64_t scale_columns(const Checkpoint& c, int64_t n) { return (n + c.scale_block - 1) / c.scale_block; }
// Of the scale of block n of rows.
CUL_NUMERIC int64_t scale_offset(const Checkpoint& c, int64_t n, int64_t g) {
  return scales_by_group(c) ? g * c.scales_stride + n : n * c.scales_stride + g;
}

// AWQ keeps the columns 0 2 4 6 1 3 5 7 of eight (0 2 1 3 of four) in the elements 0, 1, 2, ...
CUL_NUMERIC int awq_element(int column, int per) { return column / 2 + column % 2 * (per / 2); }
CUL_NUMERIC int awq_column(int element, int per) { return element % (per / 2) * 2 + element / (per / 2); }

CUL_NUMERIC Extent2 weight_words(const Checkpoint& c) {
  const int64_t per = elements_per_word(c);
  switch (c.format) {
    case CUL_FORMAT_AWQ: return {c.k, (c.n + per - 1) / per};
    case CUL_FORMAT_PLAIN:
    case CUL_FORMAT_COMPRESSED_TENSORS: return {c.n, (c.k + per - 1) / per};
    default: return {(c.k + per - 1) / per, c.n};
  }
}
// The weight in element i of a word; it may lie beyond n or k.
CUL_NUMERIC WeightIndex weight_at(const Checkpoint& c, int64_t row, int64_t column, int i) {
  const int per = elements_per_word(c);
  switch (c.format) {
    case CUL_FORMAT_AWQ: return {column * per + awq_column(i, per), row};
    case CUL_FORMAT_PLAIN:
    case CUL_FORMAT_COMPRESSED_TENSORS: return {row, column * per + i};
    default: return {column, row * per + i};
  }
}
CUL_NUMERIC Extent2 zero_words(const Checkpoint& c) {
  const int64_t per = elements_per_word(c);
  switch (c.format) {
    case CUL_FORMAT_PLAIN: return {c.n, c.groups};
    case CUL_FORMAT_COMPRESSED_TENSORS: return {(c.n + per - 1) / per, c.groups};
    default: return {c.groups, (c.n + per - 1) / per};
  }
}
struct ZeroIndex {
  int64_t n, g;
};
CUL_NUMERIC ZeroIndex zero_at(const Checkpoint& c, int64_t row, int64_t column, int i) {
  const int per = elements_per_word(c);
  switch (c.format) {
    case CUL_FORMAT_AWQ: return {column * per + awq_column(i, per), row};
    case CUL_FORMAT_PLAIN:
    case CUL_FORMAT_COMPRESSED_TENSORS: return {row * per + i, column};
    default: return {column * per + i, row};
  }
}

CUL_NUMERIC int word_element(const void* words, int64_t offset, int i, int bits) {
  return static_cast<int>(static_cast<const uint32_t*>(words)[offset] >> (i * bits) & ((1u << bits) - 1));
}
CUL_NUMERIC int byte_bias(const Checkpoint& c) { return c.signed_bytes ? zero_point_of_symmetric(c) : 0; }
CUL_NUMERIC int byte_element(const Checkpoint& c, const void* bytes, int64_t offset) {
  return (static_cast<const uint8_t*>(bytes)[offset] + byte_bias(c)) & ((1 << c.bits) - 1);
}

// The weight as an unsigned integer 0 .. 2^bits - 1; of a float its bits.
CUL_NUMERIC int weight(const Checkpoint& c, int64_t n, int64_t k) {
  const int per = elements_per_word(c);
  switch (c.format) {
    case CUL_FORMAT_PLAIN: return byte_element(c, c.weights, n * c.weights_stride + k);
    case CUL_FORMAT_AWQ:
      return word_element(c.weights, k * c.weights_stride + n / per, awq_element(static_cast<int>(n % per), per), c.bits);
    case CUL_FORMAT_COMPRESSED_TENSORS:
      return word_element(c.weights, n * c.weights_stride + k / per, static_cast<int>(k % per), c.bits);
    default: return word_element(c.weights, k / per * c.weights_stride + n, static_cast<int>(k % per), c.bits);
  }
}

// What is stored for a zero point z, and back.
CUL_NUMERIC int encode_zero(const Checkpoint& c, int z) {
  return (c.format == CUL_FORMAT_GPTQ_V1 ? z - 1 : z) & ((1 << c.bits) - 1);
}
CUL_NUMERIC int decode_zero(const Checkpoint& c, int stored) {
  return (c.format == CUL_FORMAT_GPTQ_V1 ? stored + 1 : stored) & ((1 << c.bits) - 1);
}
CUL_NUMERIC int stored_zero(const Checkpoint& c, int64_t n, int64_t g) {
  const int per = elements_per_word(c);
  switch (c.format) {
    case CUL_FORMAT_PLAIN: return byte_element(c, c.zeros, n * c.zeros_stride + g);
    case CUL_FORMAT_AWQ:
      return word_element(c.zeros, g * c.zeros_stride + n / per, awq_element(static_cast<int>(n % per), per), c.bits);
    case CUL_FORMAT_COMPRESSED_TENSORS:
      return word_element(c.zeros, n / per * c.zeros_stride + g, static_cast<int>(n % per), c.bits);
    default: return word_element(c.zeros, g * c.zeros_stride + n / per, static_cast<int>(n % per), c.bits);
  }
}
CUL_NUMERIC int zero_point(const Checkpoint& c, int64_t n, int64_t g) {
  return c.zeros ? decode_zero(c, stored_zero(c, n, g)) : zero_point_of_symmetric(c);
}

}  // namespace culebra

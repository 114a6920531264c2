// bitmap_kv_compress: its plan and its columns.
#pragma once
#include "culebra/kv_cache.h"
#include "ops/attention/head_rows.h"

namespace culebra {

struct BitmapCompressParams {
  DType dtype = DType::f32;
  int64_t tokens = 0, heads = 0, dim = 0, keep = 0;
  HeadRows x, values, bits;
};

// Magnitudes as integers of the same order; NaN above every number.
CUL_NUMERIC uint32_t magnitude_of(float x) { return numeric::float_bits(x) & 0x7fffffffu; }
CUL_NUMERIC uint32_t magnitude_of(half_t x) { return x.bits & 0x7fffu; }
CUL_NUMERIC uint32_t magnitude_of(bfloat16_t x) { return x.bits & 0x7fffu; }

BitmapCompressParams check_bitmap_kv_compress(const Call& call, const cul_bitmap_kv_compress_args& args);
CUL_DECLARE_COLUMNS(bitmap_kv_compress, BitmapCompressParams)

}  // namespace culebra

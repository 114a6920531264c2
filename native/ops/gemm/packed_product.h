// What the products with packed weights share: c = epilogue(a w^T + bias), w in the layout of the stream's backend.
#pragma once
#include "abi/call.h"
#include "culebra/gemm.h"
#include "ops/gemm/packing/packed_layouts.h"

namespace culebra {

struct PackedProduct {
  const void* a;  // [m, k], row stride lda, of `dtype`: f16, bf16 or, with byte operands, i8
  int64_t lda;
  const float* a_scale;   // [m] with i8, else null
  const uint8_t* packed;  // packed_layouts.h, n_padded x k_padded
  const void* scales;     // [groups, n_padded] of `scale_dtype`; f32: [groups, ceil(n_padded / 128)]
  const uint8_t* zeros;   // [groups, n_padded]; null: 2^(bits-1)
  const int32_t* perm;    // [k_padded] column of a for each packed row, -1: none; null: in order
  const void* bias;       // [n] of c's type, or null
  void* c;                // [m, n] or, silu_mul, [m, n / 2]; row stride ldc, of `out_dtype`
  int64_t ldc;
  int64_t m, n, k, n_padded, k_padded;
  int64_t group;   // rows per packed group; k_padded for one
  int64_t groups;  // k_padded / group
  int32_t bits;
  bool floats;  // 8 bits: f8e4m3
  DType dtype, out_dtype, scale_dtype;
  int32_t epilogue;      // CUL_EPILOGUE_*
  bool batch_invariant;  // a row's bits do not depend on m
  void* workspace;       // set with the plan
};

// A call of any of them; absent members are null.
struct PackedProductTensors {
  const cul_tensor *a, *a_scale, *packed, *scales, *zeros, *perm, *bias, *c;
  int64_t n, k, packed_group;
  int32_t epilogue;
};

PackedProduct check_packed_product(const Call& call, WeightKind kind, const PackedProductTensors& t);

}  // namespace culebra

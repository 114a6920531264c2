// Element types as the library thinks of them, and DLPack's encoding of them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "culebra/culebra.h"

namespace culebra {

enum class DType : uint8_t { f32, f16, bf16, f8e4m3, i8, u8, i32, i64, boolean, other };

constexpr DType dtype_of(cul_dtype t) {
  if (t.lanes != 1) return DType::other;
  switch (t.code << 8 | t.bits) {
    case CUL_FLOAT << 8 | 32: return DType::f32;
    case CUL_FLOAT << 8 | 16: return DType::f16;
    case CUL_BFLOAT << 8 | 16: return DType::bf16;
    case CUL_FLOAT8_E4M3FN << 8 | 8: return DType::f8e4m3;
    case CUL_INT << 8 | 8: return DType::i8;
    case CUL_UINT << 8 | 8: return DType::u8;
    case CUL_INT << 8 | 32: return DType::i32;
    case CUL_INT << 8 | 64: return DType::i64;
    case CUL_BOOL << 8 | 8: return DType::boolean;
    default: return DType::other;
  }
}

constexpr const char* name_of(DType t) {
  switch (t) {
    case DType::f32: return "f32";
    case DType::f16: return "f16";
    case DType::bf16: return "bf16";
    case DType::f8e4m3: return "f8e4m3";
    case DType::i8: return "i8";
    case DType::u8: return "u8";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::boolean: return "bool";
    case DType::other: break;
  }
  return "an unknown type";
}

constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::f32: case DType::i32: return 4;
    case DType::f16: case DType::bf16: return 2;
    case DType::i64: return 8;
    case DType::f8e4m3: case DType::i8: case DType::u8: case DType::boolean: return 1;
    case DType::other: break;
  }
  return 0;
}

}  // namespace culebra

// CUDA's built-in vector types and dim3 for the host compiler: same members, sizes and alignments.
#pragma once

#include <cstdint>

namespace culebra::simt {

// CUDA aligns a vector type to its size, up to 16 bytes, and three-element ones to their element.
#define CUL_VECTOR_TYPES(name, T)                                                    \
  struct name##1 { T x; };                                                           \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
  struct name##3 { T x, y, z; };                                                     \
  struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; }; \
  constexpr name##1 make_##name##1(T x) { return {x}; }                              \
  constexpr name##2 make_##name##2(T x, T y) { return {x, y}; }                      \
  constexpr name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }              \
  constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUL_VECTOR_TYPES(char, signed char)
CUL_VECTOR_TYPES(uchar, unsigned char)
CUL_VECTOR_TYPES(short, short)
CUL_VECTOR_TYPES(ushort, unsigned short)
CUL_VECTOR_TYPES(int, int)
CUL_VECTOR_TYPES(uint, unsigned int)
CUL_VECTOR_TYPES(longlong, long long)
CUL_VECTOR_TYPES(ulonglong, unsigned long long)
CUL_VECTOR_TYPES(float, float)
CUL_VECTOR_TYPES(double, double)
#undef CUL_VECTOR_TYPES

struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

}  // namespace culebra::simt

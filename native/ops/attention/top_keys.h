// The largest of many scores as integer keys: how the family's selections order them, and choose on the host. On a device:
// top_keys.cuh.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "device/numeric.h"

namespace culebra {

// Keys of floats in ascending order: -0 equals +0, NaN comes after +inf.
CUL_NUMERIC uint32_t order_key(float x) {
  if (x != x) return 0xffffffffu;
  const uint32_t bits = numeric::float_bits(x + 0.0f);  // -0 + 0 = +0
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The least key of the `count` largest among n, and how many of its equals belong to them: those of lowest index.
struct TopKeys {
  uint32_t least;
  int64_t equals;
};

// 1 <= count <= n; keys are reordered.
inline TopKeys top_keys(uint32_t* keys, int64_t n, int64_t count) {
  std::nth_element(keys, keys + count - 1, keys + n, [](uint32_t a, uint32_t b) { return a > b; });
  const uint32_t least = keys[count - 1];
  return {least, count - std::count_if(keys, keys + count, [&](uint32_t key) { return key > least; })};
}

}  // namespace culebra

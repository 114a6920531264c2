// Division in kernels.
#pragma once
#include "device/numeric.h"

namespace culebra {

// A block's number in a grid is below 2^31, and so is every extent that it is made of: 32 bits divide in a few instructions, 64 in a
// function that spills registers.
struct Quotient {
  int64_t quotient, rest;
};
CUL_NUMERIC Quotient block_divide(int64_t a, int64_t b) {
  const auto x = static_cast<uint32_t>(a), y = static_cast<uint32_t>(b);
  return {x / y, x % y};
}

}  // namespace culebra

// Philox4x32-10, a counter-based random number generator: the same numbers on every backend.
// Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once
#include "device/numeric.h"

namespace culebra {

struct Philox4x32 {
  uint32_t v[4];
};

CUL_NUMERIC Philox4x32 philox4x32_10(uint64_t counter_low, uint64_t counter_high, uint64_t key) {
  Philox4x32 c{{static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)}};
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c.v[0], b = uint64_t{0xCD9E8D57} * c.v[2];
    c = {{static_cast<uint32_t>(b >> 32) ^ c.v[1] ^ k0, static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ c.v[3] ^ k1, static_cast<uint32_t>(a)}};
    k0 += 0x9E3779B9;  // Weyl sequences
    k1 += 0xBB67AE85;
  }
  return c;
}

}  // namespace culebra

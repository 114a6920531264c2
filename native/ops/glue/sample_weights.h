// The arithmetic of sampling, the same on every backend. A logit becomes a key, its distance from the largest in fixed point; a
// key has one weight, a fixed-point integer; sums of weights are exact and do not depend on their order. So every backend keeps the same
// tokens and draws the same one (README.md, "Sampling").
#pragma once
#include <cmath>

#include "ops/glue/philox.h"

namespace culebra::glue {

inline constexpr uint32_t kLastKey = 0xffffffffu;  // weight 0

// (max - logit) / temperature in units of 2^-26. The largest logit has key 0; NaN and whatever is 63 or more away the last one.
CUL_NUMERIC uint32_t sample_key(float logit, float max, float inverse_temperature) {
  if (logit == max) return 0;  // infinities too
  const float distance = (max - logit) * inverse_temperature;
  return distance < 63.0f ? static_cast<uint32_t>(distance * 67108864.0f) : kLastKey;
}

// Weights of a row of n logits are scaled so that n of them fit 62 bits: the largest is 2^62 >> sample_shift(n).
inline int sample_shift(int64_t n) {
  int shift = 0;
  while ((int64_t{1} << shift) < n) ++shift;
  return shift;
}

// e^-(key 2^-26) in fixed point, by 2^-(w + f) = 2^-w (1 - f P(f)); relative error 5e-9. P interpolates (1 - 2^-f) / f at seven
// Chebyshev nodes of [0, 1]; its coefficients alternate in sign.
CUL_NUMERIC uint64_t sample_weight(uint32_t key, int shift) {
  constexpr uint64_t kLog2E = 3098164009u;  // 2^31 / ln 2
  constexpr uint32_t kP[] = {0xb17217f7, 0x3d7f7bcb, 0x0e358127, 0x027641a9, 0x005728b0, 0x0009c200, 0x0000bda6};  // 2^32 |p|
  const uint64_t exponent = key * kLog2E;  // in 2^-57
  const uint64_t f = exponent >> 25 & 0xffffffffu;
  uint64_t p = kP[6];
  for (int i = 5; i >= 0; --i) p = kP[i] - (p * f >> 32);
  const uint64_t mantissa = (uint64_t{1} << 32) - (p * f >> 32);
  const int down = static_cast<int>(exponent >> 57) + shift;
  return down < 63 ? (mantissa << 30) >> down : 0;
}

CUL_NUMERIC uint64_t high_product(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

// ceil(top_p * total), at least 1; total where top_p cuts nothing.
CUL_NUMERIC uint64_t sample_mass(float top_p, uint64_t total) {
  if (!(top_p < 1.0f)) return total;
  const uint64_t fraction = top_p > 0.0f ? static_cast<uint64_t>(top_p * 18446744073709551616.0f) : 0;
  const uint64_t mass = high_product(total, fraction) + (total * fraction != 0 ? 1 : 0);
  return mass > 0 ? mass : 1;
}

// The weight that min_p asks for: ceil(min_p * largest).
CUL_NUMERIC uint64_t sample_least(float min_p, int shift) {
  const uint64_t largest = (uint64_t{1} << 62) >> shift;
  if (!(min_p > 0.0f)) return 0;
  return min_p < 1.0f ? static_cast<uint64_t>(ceilf(min_p * static_cast<float>(largest))) : largest;
}

// A number in [0, mass), uniform.
CUL_NUMERIC uint64_t sample_target(uint64_t mass, int64_t seed, int64_t position) {
  const Philox4x32 random = philox4x32_10(static_cast<uint64_t>(position), 0, static_cast<uint64_t>(seed));
  return high_product(mass, static_cast<uint64_t>(random.v[0]) << 32 | random.v[1]);
}

// Keys are searched digit by digit, the first of 10 bits, two of 11.
CUL_NUMERIC constexpr int digit_shift(int level) { return level == 0 ? 22 : level == 1 ? 11 : 0; }
inline constexpr int kCoarseBins = 1 << 10, kFineBins = 1 << 11;

// Where tokens in order of descending probability, equal ones by id, first cross a bound: at a key, before which lie
// `count` tokens of together `mass`.
struct Crossing {
  uint64_t key, count, mass;  // a key is 32 bits; without padding the whole can be copied through shared memory
};

// The mass up to the first token by which top_k tokens (0 or less: no bound) or `reach` of mass are kept; that token has the crossing's key.
CUL_NUMERIC uint64_t kept_mass(const Crossing& at, uint64_t weight, int32_t top_k, uint64_t reach) {
  uint64_t taken = at.mass < reach ? (reach - at.mass + weight - 1) / weight : 1;
  if (top_k > 0 && static_cast<uint64_t>(top_k) - at.count < taken) taken = static_cast<uint64_t>(top_k) - at.count;
  return at.mass + taken * weight;
}

}  // namespace culebra::glue

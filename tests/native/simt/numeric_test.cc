// Conversions and packed arithmetic against their definitions: the nearest representable value by comparison in double, ties to
// the even neighbour. Values of the types are decoded from their fields with ldexp, not with the code under test.
#include "device/numeric.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace culebra {
namespace {

struct Format {
  int exponent_bits, mantissa_bits, bias;
  bool has_infinity;
  int bits() const { return 1 + exponent_bits + mantissa_bits; }
};
constexpr Format kHalf{5, 10, 15, true}, kBfloat16{8, 7, 127, true}, kE4m3{4, 3, 7, false};

double decode(const Format& f, uint32_t bits) {
  const uint32_t mantissa = bits & ((1u << f.mantissa_bits) - 1),
                 exponent = bits >> f.mantissa_bits & ((1u << f.exponent_bits) - 1);
  const uint32_t top = (1u << f.exponent_bits) - 1;
  const double sign = bits >> (f.bits() - 1) ? -1 : 1;
  if (f.has_infinity && exponent == top) return mantissa ? NAN : sign * INFINITY;
  if (!f.has_infinity && exponent == top && mantissa == (1u << f.mantissa_bits) - 1) return NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - f.bias - f.mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << f.mantissa_bits), static_cast<int>(exponent) - f.bias - f.mantissa_bits);
}

// All finite magnitudes in ascending order: the index is the bit pattern.
std::vector<double> magnitudes(const Format& f) {
  std::vector<double> values;
  for (uint32_t bits = 0; std::isfinite(decode(f, bits)) && bits < 1u << (f.bits() - 1); ++bits)
    values.push_back(decode(f, bits));
  return values;
}

uint32_t nearest(const Format& f, const std::vector<double>& values, double value) {
  const uint32_t sign = std::signbit(value) ? 1u << (f.bits() - 1) : 0;
  const double magnitude = std::fabs(value);
  const auto last = static_cast<uint32_t>(values.size() - 1);
  const uint32_t above =
      static_cast<uint32_t>(std::lower_bound(values.begin(), values.end(), magnitude) - values.begin());
  if (above > last) {  // beyond the largest: saturate, or infinity from half a step on
    const double step = values[last] - values[last - 1];
    return sign | (f.has_infinity && magnitude >= values[last] + step / 2 ? last + 1 : last);
  }
  if (values[above] == magnitude) return sign | above;
  const double up = values[above] - magnitude, down = magnitude - values[above - 1];
  if (up == down) return sign | (above % 2 ? above - 1 : above);
  return sign | (up < down ? above : above - 1);
}

template <class T>
void check_decoding(const Format& f) {
  for (uint32_t bits = 0; bits < 1u << f.bits(); ++bits) {
    const T value{static_cast<decltype(T::bits)>(bits)};
    const double expected = decode(f, bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(to_float(value))) << bits;
    } else {
      ASSERT_EQ(expected, to_float(value)) << bits;
      ASSERT_EQ(std::signbit(expected), std::signbit(to_float(value))) << bits;
      ASSERT_EQ(bits, from_float<T>(static_cast<float>(expected)).bits);
    }
  }
}

// Every value, every midpoint, and the floats on both sides of them, of both signs; then random bit patterns.
template <class T, class Encode>
void check_encoding(const Format& f, uint32_t canonical_nan, Encode encode) {
  const std::vector<double> values = magnitudes(f);
  const auto check = [&](float x) { ASSERT_EQ(nearest(f, values, x), static_cast<uint32_t>(encode(x))) << x; };
  for (size_t i = 0; i < values.size(); ++i) {
    const double next = i + 1 < values.size() ? values[i + 1] : 2 * values[i] - values[i - 1];
    for (const double centre : {values[i], (values[i] + next) / 2}) {
      const auto x = static_cast<float>(centre);
      if (std::isinf(x)) continue;
      for (const float y : {x, std::nextafter(x, INFINITY), std::nextafter(x, -INFINITY)}) {
        if (std::isinf(y)) continue;
        check(y);
        check(-y);
      }
    }
  }
  std::mt19937 random(5);
  for (int i = 0; i < 200'000; ++i) {
    const float x = numeric::bits_float(random());
    if (std::isfinite(x)) check(x);
  }
  EXPECT_EQ(canonical_nan, encode(std::numeric_limits<float>::quiet_NaN()));
  EXPECT_EQ(canonical_nan, encode(-std::numeric_limits<float>::quiet_NaN()));
  const uint32_t infinity =
      f.has_infinity ? static_cast<uint32_t>(values.size()) : static_cast<uint32_t>(values.size() - 1);
  EXPECT_EQ(infinity, encode(INFINITY));
  EXPECT_EQ(infinity | 1u << (f.bits() - 1), encode(-INFINITY));
}

TEST(Numeric, DecodesEveryHalf) { check_decoding<half_t>(kHalf); }
TEST(Numeric, DecodesEveryBfloat16) { check_decoding<bfloat16_t>(kBfloat16); }
TEST(Numeric, DecodesEveryFloat8) { check_decoding<float8_e4m3_t>(kE4m3); }
TEST(Numeric, EncodesHalf) {
  check_encoding<half_t>(kHalf, 0x7fff, [](float x) { return from_float<half_t>(x).bits; });
}
TEST(Numeric, EncodesBfloat16) {
  check_encoding<bfloat16_t>(kBfloat16, 0x7fff, [](float x) { return from_float<bfloat16_t>(x).bits; });
}
TEST(Numeric, EncodesFloat8) {
  check_encoding<float8_e4m3_t>(kE4m3, 0x7f, [](float x) { return from_float<float8_e4m3_t>(x).bits; });
}

// Whatever this machine's conversion instructions are, the portable code is tested too.
TEST(Numeric, PortableHalf) {
  check_encoding<half_t>(kHalf, 0x7fff, [](float x) { return numeric::half_from_float(x); });
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const double expected = decode(kHalf, bits);
    const float value = numeric::float_from_half(static_cast<uint16_t>(bits));
    ASSERT_TRUE(expected == value || (std::isnan(expected) && std::isnan(value))) << bits;
  }
}

TEST(Numeric, KnownValues) {
  EXPECT_EQ(0x3c00, from_float<half_t>(1.0f).bits);
  EXPECT_EQ(0x7bff, from_float<half_t>(65519.996f).bits);
  EXPECT_EQ(0x7c00, from_float<half_t>(65520.0f).bits);
  EXPECT_EQ(0x0001, from_float<half_t>(5.9604645e-8f).bits);
  EXPECT_EQ(0x0000, from_float<half_t>(2.9802322e-8f).bits);
  EXPECT_EQ(0x3f80, from_float<bfloat16_t>(1.00390625f).bits);  // a tie, to even
  EXPECT_EQ(0x7e, from_float<float8_e4m3_t>(1e9f).bits);
  EXPECT_EQ(0x7e, from_float<float8_e4m3_t>(464.0f).bits);
  EXPECT_EQ(0x01, from_float<float8_e4m3_t>(0.001953125f).bits);
  EXPECT_EQ(0x80, from_float<float8_e4m3_t>(-0.0f).bits);
  EXPECT_EQ(0xbc003c00u, pack2<half_t>(1.0f, -1.0f));
  EXPECT_EQ(-1.0f, high_float<half_t>(0xbc003c00u));
}

// a b + c in exact integer arithmetic: with exponents in a narrow range everything is a multiple of one unit.
template <class T>
void check_fused(const Format& f, uint32_t seed, int low_exponent, int high_exponent) {
  const std::vector<double> values = magnitudes(f);
  std::mt19937 random(seed);
  const auto draw = [&] {
    const int exponent = low_exponent + static_cast<int>(random() % (high_exponent - low_exponent + 1));
    return random() % 2 << (f.bits() - 1) | static_cast<uint32_t>(exponent + f.bias) << f.mantissa_bits |
           random() % (1u << f.mantissa_bits);
  };
  for (int i = 0; i < 300'000; ++i) {
    const uint32_t a = draw(), b = draw(), c = draw();
    const double exact = decode(f, a) * decode(f, b) + decode(f, c);  // exact: all bits lie within 53
    const uint32_t zero = 0;
    const auto low = [&](uint32_t pair) { return pair & 0xffffu; };
    const double sum = decode(f, a) + decode(f, c), difference = decode(f, a) - decode(f, c),
                 product = decode(f, a) * decode(f, b);
    ASSERT_EQ(nearest(f, values, exact), low(hfma2<T>(a, b, c))) << a << " " << b << " " << c;
    ASSERT_EQ(nearest(f, values, sum), hadd2<T>(zero | a << 16, c << 16) >> 16);
    ASSERT_EQ(nearest(f, values, difference), low(hsub2<T>(a, c)));
    ASSERT_EQ(nearest(f, values, product), low(hmul2<T>(a, b)));
  }
}
TEST(Numeric, PackedHalf) { check_fused<half_t>(kHalf, 41, -6, 7); }
TEST(Numeric, PackedBfloat16) { check_fused<bfloat16_t>(kBfloat16, 42, -9, 9); }

TEST(Numeric, PackedRoundsOnce) {
  const auto bf = [](float x) { return static_cast<uint32_t>(from_float<bfloat16_t>(x).bits); };
  // (1 + 2^-4)^2 = 1 + 2^-3 + 2^-8 lies halfway between two values; a term far below double's reach decides.
  EXPECT_EQ(bf(1.125f), hfma2<bfloat16_t>(bf(1.0625f), bf(1.0625f), 0) & 0xffff);
  EXPECT_EQ(bf(1.1328125f), hfma2<bfloat16_t>(bf(1.0625f), bf(1.0625f), bf(0x1p-80f)) & 0xffff);
  EXPECT_EQ(bf(1.125f), hfma2<bfloat16_t>(bf(1.0625f), bf(1.0625f), bf(-0x1p-80f)) & 0xffff);
  EXPECT_EQ(0x8000u, hmul2<half_t>(0x8000u, 0x3c00u) & 0xffff);     // -0 * 1
  EXPECT_EQ(0x0000u, hsub2<half_t>(0x3c00u, 0x3c00u) & 0xffff);     // 1 - 1 = +0
  EXPECT_EQ(0x7c00u, hmul2<half_t>(0x7bffu, 0x7bffu) & 0xffff);     // overflow
  EXPECT_EQ(0x7fffu, hfma2<half_t>(0x7c00u, 0x0000u, 0) & 0xffff);  // inf * 0
}

}  // namespace
}  // namespace culebra

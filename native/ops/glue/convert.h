// Conversion between any two element types, the same on the host and on the device.
#pragma once
#include <type_traits>

#include "abi/dtype.h"
#include "device/numeric.h"

namespace culebra {

struct bool_t {
  uint8_t byte;
};

// f(T{}) for the type that stores `type`.
template <class F>
void with_element(DType type, F&& f) {
  switch (type) {
    case DType::f32: return f(float{});
    case DType::f16: return f(half_t{});
    case DType::bf16: return f(bfloat16_t{});
    case DType::f8e4m3: return f(float8_e4m3_t{});
    case DType::i8: return f(int8_t{});
    case DType::u8: return f(uint8_t{});
    case DType::i32: return f(int32_t{});
    case DType::i64: return f(int64_t{});
    default: return f(bool_t{});
  }
}

namespace glue {

template <class T>
inline constexpr bool kIsInteger = std::is_integral_v<T>;
template <class T>
inline constexpr bool kIsFloat = !kIsInteger<T> && !std::is_same_v<T, bool_t>;

// x with 24 significant bits, the last one set where more are needed ("round to odd"): rounding it to f16, bf16 or f8 gives what
// one rounding of x gives.
CUL_NUMERIC float odd_float(int64_t x) {
  const uint64_t magnitude = x < 0 ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x);
  int shift = 0;
  while (magnitude >> shift >= 1u << 24) ++shift;
  const uint64_t kept = magnitude >> shift | (magnitude & ((uint64_t{1} << shift) - 1) ? 1 : 0);
  const float scaled = static_cast<float>(kept) * numeric::bits_float(static_cast<uint32_t>(127 + shift) << 23);
  return x < 0 ? -scaled : scaled;
}

// Truncates and saturates; NaN gives 0.
template <class To>
CUL_NUMERIC To integer_of(float x) {
  constexpr To lowest = std::is_signed_v<To> ? static_cast<To>(uint64_t{1} << (8 * sizeof(To) - 1)) : To{0};
  constexpr To highest = static_cast<To>(~lowest);
  constexpr float above = static_cast<float>(uint64_t{1} << (8 * sizeof(To) - 2)) * (std::is_signed_v<To> ? 2.0f : 4.0f);
  if (x != x) return To{0};
  if (x >= above) return highest;
  if (x <= static_cast<float>(lowest)) return lowest;
  return static_cast<To>(x);
}

// Floats round to nearest even (f8 saturating at 448), integers wrap, and what is not zero (a NaN aside) is true.
template <class To, class From>
CUL_NUMERIC To convert(From x) {
  if constexpr (std::is_same_v<From, bool_t>) {
    return convert<To>(static_cast<uint8_t>(x.byte != 0));
  } else if constexpr (std::is_same_v<To, bool_t>) {
    if constexpr (kIsInteger<From>) {
      return {static_cast<uint8_t>(x != 0)};
    } else {
      const float value = to_float(x);
      return {static_cast<uint8_t>(value != 0 && value == value)};
    }
  } else if constexpr (kIsFloat<From> && kIsFloat<To>) {
    return from_float<To>(to_float(x));
  } else if constexpr (kIsFloat<From>) {
    return integer_of<To>(to_float(x));
  } else if constexpr (std::is_same_v<To, float>) {
    return static_cast<float>(x);
  } else if constexpr (kIsFloat<To>) {
    return from_float<To>(odd_float(x));
  } else {
    return static_cast<To>(x);
  }
}

// What add takes, of the types that with_element knows.
template <class T>
inline constexpr bool kAddable = std::is_same_v<T, float> || std::is_same_v<T, half_t> || std::is_same_v<T, bfloat16_t> ||
                                 std::is_same_v<T, int32_t> || std::is_same_v<T, int64_t>;

// The bodies of the elementwise operators: one output element from those of the inputs.
struct AddOp {
  template <class T>
  CUL_NUMERIC T operator()(T a, T b) const {
    if constexpr (kIsInteger<T>) {
      using Unsigned = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));  // wraps
    } else {
      return from_float<T>(to_float(a) + to_float(b));
    }
  }
};
struct ScaleOp {
  float factor;
  template <class T>
  CUL_NUMERIC T operator()(T x) const {
    return from_float<T>(to_float(x) * factor);
  }
};
template <class To>
struct CastOp {
  template <class From>
  CUL_NUMERIC To operator()(From x) const {
    return convert<To>(x);
  }
};
struct CopyOp {
  template <class T>
  CUL_NUMERIC T operator()(T x) const {
    return x;
  }
};

}  // namespace glue
}  // namespace culebra

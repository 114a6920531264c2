// Loads and stores of up to 16 bytes at once, aligned to their size, with the cache hints that matter.
//
//   uint4 w = load_stream(weights + i);          read once: first to leave the caches
//   uint4 x = load_constant(input + i);          nobody writes it during the kernel: the read-only path
//   Vector<half_t, 8> v = load_vector<8>(x);     eight halves as an array
#pragma once

#include <type_traits>

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

// kCount elements that move as one.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  static_assert(sizeof(T) * kCount <= 16 && (sizeof(T) * kCount & (sizeof(T) * kCount - 1)) == 0,
                "a vector has 1, 2, 4, 8 or 16 bytes");
  T values[kCount];

  CUL_DEVICE_FN T& operator[](int i) { return values[i]; }
  CUL_DEVICE_FN const T& operator[](int i) const { return values[i]; }
};

#if CUL_EMULATED

namespace detail {
template <class V>
V checked_load(const V* source, Here here) {
  check_read(source, sizeof(V), here);
  V value;
  __builtin_memcpy(&value, static_cast<const void*>(source), sizeof value);
  return value;
}
template <class V>
void checked_store(V* destination, const V& value, Here here) {
  check_write(destination, sizeof(V), here);
  __builtin_memcpy(static_cast<void*>(destination), &value, sizeof value);
}
}  // namespace detail

template <class V>
V load_constant(const V* source, Here here = Here::current()) {
  return detail::checked_load(source, here);
}
template <class V>
V load_stream(const V* source, Here here = Here::current()) {
  return detail::checked_load(source, here);
}
template <class V>
void store_stream(V* destination, const std::type_identity_t<V>& value, Here here = Here::current()) {
  detail::checked_store(destination, value, here);
}
template <int kCount, class T>
Vector<T, kCount> load_vector(const T* source, Here here = Here::current()) {
  return detail::checked_load(reinterpret_cast<const Vector<T, kCount>*>(source), here);
}
template <class T, int kCount>
void store_vector(std::type_identity_t<T>* destination, const Vector<T, kCount>& value, Here here = Here::current()) {
  detail::checked_store(reinterpret_cast<Vector<T, kCount>*>(destination), value, here);
}

#else

namespace detail {
// The same bytes as one register, or two or four.
template <int kBytes>
struct Words;
template <>
struct Words<4> {
  using type = unsigned;
};
template <>
struct Words<8> {
  using type = uint2;
};
template <>
struct Words<16> {
  using type = uint4;
};
template <class V>
using words_t = typename Words<sizeof(V)>::type;
template <class To, class From>
CUL_DEVICE_FN To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}
}  // namespace detail

template <class V>
CUL_DEVICE_FN V load_constant(const V* source) {
  return detail::as<V>(__ldg(reinterpret_cast<const detail::words_t<V>*>(source)));
}
template <class V>
CUL_DEVICE_FN V load_stream(const V* source) {
  return detail::as<V>(__ldcs(reinterpret_cast<const detail::words_t<V>*>(source)));
}
template <class V>
CUL_DEVICE_FN void store_stream(V* destination, const std::type_identity_t<V>& value) {
  __stcs(reinterpret_cast<detail::words_t<V>*>(destination), detail::as<detail::words_t<V> >(value));
}
template <int kCount, class T>
CUL_DEVICE_FN Vector<T, kCount> load_vector(const T* source) {
  return *reinterpret_cast<const Vector<T, kCount>*>(source);
}
template <class T, int kCount>
CUL_DEVICE_FN void store_vector(std::type_identity_t<T>* destination, const Vector<T, kCount>& value) {
  *reinterpret_cast<Vector<T, kCount>*>(destination) = value;
}

#endif

}  // namespace culebra::CUL_DEVICE_NS

// The 32 lanes of a warp: CUDA's shuffles, votes, match and reduce, and sums and maxima built on them.
// None of them orders memory between lanes; __syncwarp does.
#pragma once

#include <type_traits>

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

inline constexpr unsigned kFullMask = 0xffffffffu;

#if CUL_EMULATED

namespace detail {
template <class T>
T shuffle_value(ShuffleMode mode, unsigned mask, T value, int lane, int width, Here here) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a shuffle moves up to eight bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = shuffle(mode, mask, bits, lane, width, here);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
uint64_t match_bits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "match compares four or eight bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  return bits;
}
}  // namespace detail

inline void __syncwarp(unsigned mask = kFullMask, Here here = Here::current()) { sync_warp(mask, here); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, Here here = Here::current()) {
  return detail::shuffle_value(ShuffleMode::index, mask, value, lane, width, here);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, Here here = Here::current()) {
  return detail::shuffle_value(ShuffleMode::up, mask, value, static_cast<int>(delta), width, here);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, Here here = Here::current()) {
  return detail::shuffle_value(ShuffleMode::down, mask, value, static_cast<int>(delta), width, here);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, Here here = Here::current()) {
  return detail::shuffle_value(ShuffleMode::butterfly, mask, value, lane_mask, width, here);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, Here here = Here::current()) {
  return ballot(mask, predicate != 0, here);
}
inline int __any_sync(unsigned mask, int predicate, Here here = Here::current()) {
  return ballot(mask, predicate != 0, here) != 0;
}
inline int __all_sync(unsigned mask, int predicate, Here here = Here::current()) {
  return ballot(mask, predicate != 0, here) == mask;
}
inline unsigned __activemask(Here here = Here::current()) { return active_mask(here); }

template <class T>
unsigned __match_any_sync(unsigned mask, T value, Here here = Here::current()) {
  return match_any(mask, detail::match_bits(value), here);
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* all_equal, Here here = Here::current()) {
  return match_all(mask, detail::match_bits(value), all_equal, here);
}

inline int __reduce_add_sync(unsigned mask, int value, Here here = Here::current()) {
  return static_cast<int>(reduce(ReduceMode::add, mask, static_cast<unsigned>(value), here));
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value, Here here = Here::current()) {
  return reduce(ReduceMode::add, mask, value, here);
}
inline int __reduce_min_sync(unsigned mask, int value, Here here = Here::current()) {
  return static_cast<int>(reduce(ReduceMode::min_signed, mask, static_cast<unsigned>(value), here));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, Here here = Here::current()) {
  return reduce(ReduceMode::min_unsigned, mask, value, here);
}
inline int __reduce_max_sync(unsigned mask, int value, Here here = Here::current()) {
  return static_cast<int>(reduce(ReduceMode::max_signed, mask, static_cast<unsigned>(value), here));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, Here here = Here::current()) {
  return reduce(ReduceMode::max_unsigned, mask, value, here);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, Here here = Here::current()) {
  return reduce(ReduceMode::bit_and, mask, value, here);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, Here here = Here::current()) {
  return reduce(ReduceMode::bit_or, mask, value, here);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, Here here = Here::current()) {
  return reduce(ReduceMode::bit_xor, mask, value, here);
}

#endif

// Over each aligned group of kLanes lanes; every lane gets the result, the same bits in all of them. All 32 lanes call.
template <int kLanes = 32, class T>
CUL_DEVICE_FN T warp_sum(T value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kFullMask, value, offset);
  return value;
}

template <int kLanes = 32, class T>
CUL_DEVICE_FN T warp_max(T value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value = max(value, __shfl_xor_sync(kFullMask, value, offset));
  return value;
}

template <int kLanes = 32, class T>
CUL_DEVICE_FN T warp_min(T value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value = min(value, __shfl_xor_sync(kFullMask, value, offset));
  return value;
}

// Lane i gets the sum of lanes 0..i of its group.
template <int kLanes = 32, class T>
CUL_DEVICE_FN T warp_inclusive_sum(T value) {
  const int lane = static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % kLanes;
#pragma unroll
  for (int offset = 1; offset < kLanes; offset *= 2) {
    const T below = __shfl_up_sync(kFullMask, value, static_cast<unsigned>(offset), kLanes);
    if (lane >= offset) value += below;
  }
  return value;
}

}  // namespace culebra::CUL_DEVICE_NS

// What probes compute from: numbers that are the same everywhere.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS::fidelity {

CUL_DEVICE_FN uint32_t random_word(uint32_t i) {
  i = (i ^ i >> 16) * 0x7feb352du;
  i = (i ^ i >> 15) * 0x846ca68bu;
  return i ^ i >> 16;
}
CUL_DEVICE_FN float small_integer(uint32_t i) { return static_cast<float>(static_cast<int>(random_word(i) % 17) - 8); }
CUL_DEVICE_FN uint32_t fold(uint32_t hash, uint32_t word) { return (hash ^ word) * 0x01000193u; }
CUL_DEVICE_FN uint32_t nan_as_one(float value) { return value == value ? __float_as_uint(value) : 0x7fffffffu; }

template <int kThreadCount, int kWordCount, int kFirstCapability = 80>
struct Probe {
  static constexpr int kThreads = kThreadCount, kWords = kWordCount, kCapability = kFirstCapability, kBlocks = 1;
};

}  // namespace culebra::CUL_DEVICE_NS::fidelity

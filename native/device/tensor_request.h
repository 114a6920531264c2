// What a tensor map is made from (tensor_map.h). Plain C++, for host code.
#pragma once

#include <cstdint>
#include <string>

namespace culebra {

// The copy engine's own format on a device, the request itself under the emulation.
struct alignas(128) TensorMap {
  uint64_t words[16];
};

enum class Swizzle : uint8_t { none, bytes_128 };

// Dimension 0 is the contiguous one.
struct TensorMapRequest {
  const void* data;         // aligned to 16 bytes
  int element_bytes;        // 1 or 2
  int rank;                 // 2 or 3
  int64_t extent[3];        // in elements
  int64_t stride_bytes[2];  // of dimensions 1 and 2: multiples of 16
  int box[3];               // in elements, up to 256 each; a row of the box is a multiple of 16 bytes
  Swizzle swizzle;          // bytes_128: a row of the box has 128 bytes
};

// Why the copy engine does not take the request; empty if it does.
inline std::string refusal(const TensorMapRequest& request) {
  const auto number = [](int64_t value) { return std::to_string(value); };
  if (request.element_bytes != 1 && request.element_bytes != 2)
    return "elements of " + number(request.element_bytes) + " bytes; 1 and 2 are supported";
  if (request.rank != 2 && request.rank != 3) return "rank " + number(request.rank) + "; 2 and 3 are supported";
  if (!request.data || reinterpret_cast<uintptr_t>(request.data) % 16) return "the data is not aligned to 16 bytes";
  for (int i = 0; i < request.rank; ++i) {
    const std::string dimension = " of dimension " + number(i) + " is ";
    if (request.extent[i] < 1 || request.extent[i] > int64_t{1} << 32)
      return "the extent" + dimension + number(request.extent[i]) + ", outside 1..2^32";
    if (request.box[i] < 1 || request.box[i] > 256)
      return "the box's extent" + dimension + number(request.box[i]) + ", outside 1..256";
    if (i == 0) continue;
    const int64_t stride = request.stride_bytes[i - 1];
    if (stride <= 0 || stride % 16 || stride >= int64_t{1} << 40)
      return "the stride" + dimension + number(stride) + " bytes, not a positive multiple of 16 below 2^40";
  }
  const int row_bytes = request.box[0] * request.element_bytes;
  if (row_bytes % 16) return "a row of the box has " + number(row_bytes) + " bytes, not a multiple of 16";
  if (request.swizzle == Swizzle::bytes_128 && row_bytes != 128)
    return "a row of the box has " + number(row_bytes) + " bytes; the swizzle needs 128";
  return {};
}

}  // namespace culebra

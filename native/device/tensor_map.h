// Tiles of a matrix, or of a stack of matrices, copied from global to shared memory by the copy engine. sm_90 and up.
//
//   host:    const TensorMap map = make_tensor_map({x, 2, 2, {k, m}, {row_stride_bytes}, {64, 128}, Swizzle::bytes_128});
//            launch(kernel, ..., map);
//   device:  __global__ void kernel(const __grid_constant__ TensorMap map)
//            mbarrier_arrive_expect_bytes(full, 64 * 128 * 2);              // the whole box, also where it hangs over the edge
//            tensor_copy_2d(shared_address(tile), map, k0, m0, full);       // element (k0 + i, m0 + j) to tile row j, column i
//
// The box lies in shared memory row after row, without padding; elements outside the tensor, also at negative coordinates, become
// zeros. Swizzle::bytes_128 wants boxes of 128 bytes a row: byte b of row j goes to 128 j + (b ^ 16 (j % 8)), where ldmatrix meets no
// bank conflicts, and which is wgmma's 128-byte layout (wgmma.h). The tile is aligned to 128 bytes, with swizzling
// to 1024.
#pragma once

#include "device/bulk_copy.h"
#include "device/tensor_request.h"

namespace culebra::CUL_DEVICE_NS {

// On the host. Throws Refusal for a request that the copy engine does not take, or when the driver has no copy engine to offer.
TensorMap make_tensor_map(const TensorMapRequest& request);

#if CUL_EMULATED

inline void tensor_copy_2d(uint32_t destination, const TensorMap& map, int inner, int row, uint32_t barrier,
                           Here here = Here::current()) {
  const int at[2] = {inner, row};
  tensor_copy(destination, map, at, 2, barrier, here);
}
inline void tensor_copy_2d_stream(uint32_t destination, const TensorMap& map, int inner, int row, uint32_t barrier,
                                  Here here = Here::current()) {
  tensor_copy_2d(destination, map, inner, row, barrier, here);
}
inline void tensor_copy_3d(uint32_t destination, const TensorMap& map, int inner, int row, int matrix, uint32_t barrier,
                           Here here = Here::current()) {
  const int at[3] = {inner, row, matrix};
  tensor_copy(destination, map, at, 3, barrier, here);
}
inline void prefetch_tensor_map(const TensorMap&) {}

#elif CUL_HAS_SM90

CUL_DEVICE_FN void tensor_copy_2d(uint32_t destination, const TensorMap& map, int inner, int row, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::
          "r"(destination),
      "l"(&map), "r"(inner), "r"(row), "r"(barrier)
      : "memory");
}
// For data that is read once (weights): first to leave L2.
CUL_DEVICE_FN void tensor_copy_2d_stream(uint32_t destination, const TensorMap& map, int inner, int row,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, "
      "%3}], [%4], %5;" ::"r"(destination),
      "l"(&map), "r"(inner), "r"(row), "r"(barrier), "l"(detail::evict_first_policy())
      : "memory");
}
CUL_DEVICE_FN void tensor_copy_3d(uint32_t destination, const TensorMap& map, int inner, int row, int matrix,
                                  uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(destination),
      "l"(&map), "r"(inner), "r"(row), "r"(matrix), "r"(barrier)
      : "memory");
}
// By one thread, well before the first copy: the map is in the copy engine's cache when that comes.
CUL_DEVICE_FN void prefetch_tensor_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

#endif

}  // namespace culebra::CUL_DEVICE_NS

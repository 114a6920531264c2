// Half weights b [n, k] as operand A of the product for compute capability 9.0: both operands lie in shared memory as tensor maps
// bring them.
#pragma once
#include "ops/gemm/hopper/hopper_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

// Each of kColumnGroups warpgroups has 64 columns.
template <class T, int kColumnGroups>
struct HopperHalf {
  using Element = T;
  static constexpr int kColumns = 64 * kColumnGroups, kSliceBytes = kColumns * kSliceRows * 2;
  static constexpr int kFetchWarps = 1, kInFlight = 1;

  TensorMap rows;  // of b, in boxes of kColumns x 64 k
  int32_t read_once;  // no other block reads these weights

#if CUL_HAS_SM90A
  CUL_DEVICE_FN int finished_columns() const { return kColumns; }
  CUL_DEVICE_FN uint32_t fetched_bytes() const { return kSliceBytes; }
  CUL_DEVICE_FN void fetch(uint32_t slice, int column_tile, int index, int, uint32_t landed) const {
    if (read_once)
      tensor_copy_2d_stream(slice, rows, index * kSliceRows, column_tile * kColumns, landed);
    else
      tensor_copy_2d(slice, rows, index * kSliceRows, column_tile * kColumns, landed);
  }

  template <int kTokens>
  struct Accumulator {
    int warp, lane;
    float total[kTokens / 2] = {};

    CUL_DEVICE_FN Accumulator(int warp, int lane) : warp(warp), lane(lane) {}

    // Returns when the slice before has been multiplied.
    CUL_DEVICE_FN void multiply(const HopperHalf&, const unsigned char* slice, uint64_t tokens) {
      const uint64_t columns = wgmma_descriptor(shared_address(slice) + static_cast<uint32_t>(warp / 4 * 64 * kSliceRows * 2));
      wgmma_fence();
#pragma unroll
      for (int step = 0; step < kSliceRows / 16; ++step)
        wgmma<T, kTokens>(total, wgmma_advance(columns, step * 32), wgmma_advance(tokens, step * 32));
      wgmma_commit();
      wgmma_wait<1>();
    }
    CUL_DEVICE_FN void finish() { wgmma_wait<0>(); }

    CUL_DEVICE_FN void store(float* sums, int row) const {
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i)
        sums[(i / 4 * 8 + lane % 4 * 2 + i % 2) * row + warp * 16 + i / 2 % 2 * 8 + lane / 4] = total[i];
    }
  };
#endif
};

}  // namespace culebra::CUL_DEVICE_NS

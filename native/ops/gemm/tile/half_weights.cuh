// Half weights b [n, k] as operand A of the tile kernel.
#pragma once
#include "device/mma.h"
#include "ops/gemm/tile/tile_gemm.cuh"

namespace culebra::CUL_DEVICE_NS {

template <class T>
struct HalfWeights {
  using Element = T;
  static constexpr int kSliceBytes = 64 * kSliceRows * 2;

  const T* b;
  int64_t ldb, n, k;
  int32_t aligned;

  // Row r of the 64 holds its chunks permuted by r / 8: the rows that one ldmatrix reads are 8 apart.
  CUL_DEVICE_FN static int chunk_at(int row, int chunk) { return row * 8 + (chunk ^ (row / 8)); }

  template <int kThreads, bool kReadOnce>
  CUL_DEVICE_FN void fetch(unsigned char* slice, int64_t column_block, int index, int thread) const {
    fetch_rows<64, kThreads, kReadOnce>(reinterpret_cast<T*>(slice), b, ldb, aligned != 0, column_block * 64, n, int64_t{index} * kSliceRows, k, thread,
                             chunk_at);
  }

  template <int kTokenTiles>
  struct Accumulator {
    int lane;
    float total[4][kTokenTiles][4] = {};

    CUL_DEVICE_FN explicit Accumulator(int lane) : lane(lane) {}
    CUL_DEVICE_FN void finish() {}

    CUL_DEVICE_FN void multiply(const HalfWeights&, const unsigned char* slice, int, int step,
                                const uint32_t (&tokens)[kTokenTiles][2]) {
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        uint32_t a[4];
        const int row = lane % 8 * 8 + 2 * w + lane / 8 % 2;
        ldmatrix_x4(a, shared_address(reinterpret_cast<const T*>(slice) + chunk_at(row, step * 2 + lane / 16) * 8));
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i) mma_m16n8k16<T>(total[w][i], a, tokens[i][0], tokens[i][1]);
      }
    }

    CUL_DEVICE_FN float4 columns(int i, int odd, int half) const {
      return make_float4(total[2 * half][i][odd], total[2 * half][i][odd + 2], total[2 * half + 1][i][odd],
                         total[2 * half + 1][i][odd + 2]);
    }
  };
};

}  // namespace culebra::CUL_DEVICE_NS

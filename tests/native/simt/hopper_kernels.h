// A pipelined matrix product for 9.0 into which faults can be planted, and its inputs.
#pragma once

#include "device/barrier.h"
#include "device/cluster.h"
#include "device/mbarrier.h"
#include "device/tensor_map.h"
#include "device/wgmma.h"
#include "harness.h"

namespace culebra::simt {

enum class Fault {
  none,
  full_is_not_waited_for,
  empty_is_not_waited_for,
  wrong_parity,
  too_many_bytes_announced,
  too_few_bytes_announced,
  no_init_fence,
  no_sync_after_init,
  no_wgmma_fence,
  sums_written_after_fence,
  sums_read_before_wait,
  operands_changed_before_wait,
  slot_released_before_wait,
  never_waited_for,
  never_committed,
  one_warp_absent,
  unaligned_tile,
  tile_outside_shared,
  wrong_barrier_count,
};

// Computes  y[64, 32] = a[64, k] b[32, k]^T; rows, columns and k beyond the tensors are zeros
// Shapes    any; Layouts: a, b K-major through 128-byte swizzled maps; Tiles: 64 x 32, 128 bytes of k, two stages
// Shared    2 x (64 + 32) x 128 bytes and four mbarriers; threads 0..127 multiply, thread 128 copies
template <class T, bool kRegisters, Fault kFault>
__global__ void pipeline(float* y, const T* a_data, int k_elements, const __grid_constant__ TensorMap a_map,
                         const __grid_constant__ TensorMap b_map) {
  constexpr int kStages = 2, kDepth = 128 / sizeof(T);
  constexpr uint32_t kBytesA = 64 * 128, kBytesB = 32 * 128, kStageBytes = kBytesA + kBytesB;
  CUL_DYNAMIC_SHARED(char, tiles, 1024);
  CUL_SHARED(uint64_t, barriers, [2 * kStages]);
  const auto full = [&](int stage) { return shared_address(&barriers[stage]); };
  const auto empty = [&](int stage) { return shared_address(&barriers[kStages + stage]); };
  const auto tile = [&](int stage) {
    return shared_address(tiles) + static_cast<uint32_t>(stage) * kStageBytes +
           (kFault == Fault::unaligned_tile ? 128 : 0);
  };
  const int steps = (k_elements + kDepth - 1) / kDepth;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(full(stage), kFault == Fault::wrong_barrier_count ? 2 : 1);
      mbarrier_init(empty(stage), 128);
    }
    if (kFault != Fault::no_init_fence) mbarrier_init_fence();
  }
  if (kFault != Fault::no_sync_after_init) __syncthreads();

  if (threadIdx.x >= 128) {
    if (threadIdx.x > 128) return;
    for (int step = 0; step < steps; ++step) {
      const int stage = step % kStages;
      const uint32_t round = static_cast<uint32_t>(step / kStages);
      if (kFault != Fault::empty_is_not_waited_for) mbarrier_wait(empty(stage), (round & 1) ^ 1);
      constexpr int kError = kFault == Fault::too_many_bytes_announced  ? 16
                             : kFault == Fault::too_few_bytes_announced ? -64 * 128
                                                                        : 0;
      mbarrier_arrive_expect_bytes(full(stage), kStageBytes + kError);
      const uint32_t b_tile = tile(stage) + kBytesA + (kFault == Fault::tile_outside_shared ? 1024 : 0);
      tensor_copy_2d(tile(stage), a_map, step * kDepth, 0, full(stage));
      tensor_copy_2d_stream(b_tile, b_map, step * kDepth, 0, full(stage));
    }
    return;
  }

  if (kFault == Fault::one_warp_absent && threadIdx.x >= 96) return;
  float d[16] = {};
  const int row = static_cast<int>(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4), t = static_cast<int>(threadIdx.x % 4);
  for (int step = 0; step < steps; ++step) {
    const int stage = step % kStages;
    const uint32_t parity = static_cast<uint32_t>(step / kStages) & 1;
    uint32_t a[4][4];
    if (kRegisters)
      for (int j = 0; j < 4; ++j)
        for (int i = 0; i < 4; ++i)
          a[j][i] = *reinterpret_cast<const uint32_t*>(a_data + (row + 8 * (i % 2)) * k_elements + step * kDepth +
                                                       (j * 32 + t * 4 + i / 2 * 16) / static_cast<int>(sizeof(T)));
    if (kFault != Fault::full_is_not_waited_for)
      mbarrier_wait(full(stage), kFault == Fault::wrong_parity ? parity ^ 1 : parity);
    if (kFault != Fault::no_wgmma_fence) wgmma_fence();
    if (kFault == Fault::sums_written_after_fence) d[3] = d[3] + 1.0f;
    const uint64_t a_tile = wgmma_descriptor(tile(stage)), b_tile = wgmma_descriptor(tile(stage) + kBytesA);
    for (uint32_t j = 0; j < 4; ++j) {
      if constexpr (kRegisters) {
        wgmma<T, 32>(d, a[j], wgmma_advance(b_tile, 32 * j));
      } else {
        wgmma<T, 32>(d, wgmma_advance(a_tile, 32 * j), wgmma_advance(b_tile, 32 * j));
      }
    }
    if (kFault != Fault::never_committed) wgmma_commit();
    if (kFault == Fault::operands_changed_before_wait) a[1][2] = 0;
    if (kFault == Fault::sums_read_before_wait && d[5] == 1.0f) y[0] = 0;
    if (kFault == Fault::slot_released_before_wait) mbarrier_arrive(empty(stage));
    if (kFault != Fault::never_waited_for) wgmma_wait<0>();
    if (kFault != Fault::slot_released_before_wait) mbarrier_arrive(empty(stage));
  }
  for (int i = 0; i < 16; ++i) y[(row + i / 2 % 2 * 8) * 32 + i / 4 * 8 + 2 * t + i % 2] = d[i];
}

namespace testing {

template <class T>
T encode(float value) {
  if constexpr (std::is_same_v<T, int8_t>) {
    return static_cast<int8_t>(value);
  } else {
    return from_float<T>(value);
  }
}

// Small integers: every sum of products is exact.
template <class T>
class Matrices {
 public:
  Matrices(int rows, int columns, int k)
      : rows_(rows),
        columns_(columns),
        k_(k),
        a_(fill(rows * k, 1)),
        b_(fill(columns * k, 2)),
        device_a_(stored(a_)),
        device_b_(stored(b_)) {}

  template <class Kernel>
  std::string run(Kernel kernel, DeviceArray<float>& y) const {
    return findings(kernel, 1, 160, 2 * 96 * 128, y, device_a_.get(), k_, map(device_a_, rows_, 64),
                    map(device_b_, columns_, 32));
  }
  // Where y is not the product; empty if it is.
  std::string difference(const std::vector<float>& y) const {
    for (int row = 0; row < 64; ++row)
      for (int column = 0; column < 32; ++column) {
        float sum = 0;
        if (row < rows_ && column < columns_)
          for (int k = 0; k < k_; ++k)
            sum += a_[static_cast<size_t>(row * k_ + k)] * b_[static_cast<size_t>(column * k_ + k)];
        const float got = y[static_cast<size_t>(row * 32 + column)];
        if (got != sum)
          return "y[" + std::to_string(row) + ", " + std::to_string(column) + "] is " + std::to_string(got) + ", not " +
                 std::to_string(sum);
      }
    return {};
  }

 private:
  static std::vector<float> fill(int count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = static_cast<float>(static_cast<int>(random() % 5) - 2);
    return values;
  }
  static std::vector<T> stored(const std::vector<float>& values) {
    std::vector<T> bits;
    for (const float value : values) bits.push_back(encode<T>(value));
    return bits;
  }
  TensorMap map(DeviceArray<T>& data, int rows, int box_rows) const {
    constexpr int kSize = sizeof(T);
    return make_tensor_map(
        {data.get(), kSize, 2, {k_, rows}, {int64_t{k_} * kSize}, {128 / kSize, box_rows}, Swizzle::bytes_128});
  }

  int rows_, columns_, k_;
  std::vector<float> a_, b_;
  mutable DeviceArray<T> device_a_, device_b_;
};

}  // namespace testing
}  // namespace culebra::simt

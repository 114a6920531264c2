// Kernels without a fault: right results and no findings, whatever the schedule.
#include <cmath>

#include "device/async_copy.h"
#include "device/atomic.h"
#include "device/barrier.h"
#include "device/mma.h"
#include "device/warp.h"
#include "harness.h"

namespace culebra::simt {

constexpr int kTileM = 64, kTileN = 64, kTileK = 32;

// c[M,N] = a[M,K] b[N,K]^T: cp.async double buffer, 16-byte chunks swizzled by row, ldmatrix, mma.
template <class T>
__global__ void __launch_bounds__(128) gemm(T* c, const T* a, const T* b, int m, int n, int k) {
  CUL_DYNAMIC_SHARED(T, tiles, 128);
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  const int m0 = blockIdx.y * kTileM, n0 = blockIdx.x * kTileN, wm = warp % 2 * 32, wn = warp / 2 * 32;
  const auto chunk = [](int row, int column) { return row * kTileK + (column ^ (row / 2 % 4)) * 8; };
  const auto stage = [&](int s, bool is_b) { return tiles + (s * 2 + is_b) * kTileM * kTileK; };
  const auto load = [&](int s, int k0) {
    for (int i = thread; i < kTileM * kTileK / 8; i += 128) {
      const int row = i / 4, column = i % 4;
      const bool valid = m0 + row < m;
      cp_async_l2(shared_address(stage(s, false) + chunk(row, column)),
                  a + static_cast<size_t>(valid ? m0 + row : 0) * k + k0 + column * 8, valid);
      cp_async_stream(shared_address(stage(s, true) + chunk(row, column)),
                      b + static_cast<size_t>(n0 + row) * k + k0 + column * 8);
    }
    cp_async_commit();
  };
  float acc[2][4][4] = {};
  const int steps = k / kTileK;
  load(0, 0);
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) {
      load((step + 1) % 2, (step + 1) * kTileK);
    } else {
      cp_async_commit();
    }
    cp_async_wait<1>();
    __syncthreads();
    for (int kk = 0; kk < kTileK / 16; ++kk) {
      uint32_t fa[2][4], fb[2][4];
      for (int i = 0; i < 2; ++i)
        ldmatrix_x4(fa[i], shared_address(stage(step % 2, false) + chunk(wm + i * 16 + lane % 16, kk * 2 + lane / 16)));
      for (int j = 0; j < 2; ++j)
        ldmatrix_x4(fb[j], shared_address(stage(step % 2, true) +
                                          chunk(wn + j * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2)));
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 4; ++j) mma_m16n8k16<T>(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 4; ++j)
      for (int h = 0; h < 4; ++h) {
        const int row = m0 + wm + i * 16 + lane / 4 + h / 2 * 8, column = n0 + wn + j * 8 + lane % 4 * 2 + h % 2;
        if (row < m) c[static_cast<size_t>(row) * n + column] = from_float<T>(acc[i][j][h]);
      }
}

// Sums n integers; the last block to arrive adds up what the others left.
__global__ void __launch_bounds__(128) sum_blocks(int* total, int* partial, unsigned* ticket, const int* x, int n) {
  CUL_SHARED(int, warp_sums, [4]);
  CUL_SHARED(bool, last);
  int sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
  const auto block_sum = [&](int value) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = value;
    __syncthreads();
    value = warp_sum(threadIdx.x % 32 < 4 ? warp_sums[threadIdx.x % 32] : 0);
    __syncthreads();
    return value;
  };
  sum = block_sum(sum);
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  sum = 0;
  for (int i = threadIdx.x; i < static_cast<int>(gridDim.x); i += blockDim.x) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total = sum;
}

// Inclusive scan: each block waits for the total of the one before it.
__global__ void __launch_bounds__(64) scan(int* y, int* carry, int* ready, const int* x, int n) {
  CUL_SHARED(int, warp_totals, [2]);
  CUL_SHARED(int, before);
  const int i = blockIdx.x * 64 + threadIdx.x;
  int value = warp_inclusive_sum(i < n ? x[i] : 0);
  if (threadIdx.x % 32 == 31) warp_totals[threadIdx.x / 32] = value;
  if (threadIdx.x == 0) {
    before = 0;
    if (blockIdx.x > 0) {
      spin_until([&] { return ld_acquire(&ready[blockIdx.x - 1]) == 1; });
      before = carry[blockIdx.x - 1];
    }
  }
  __syncthreads();
  if (threadIdx.x >= 32) value += warp_totals[0];
  value += before;
  if (i < n) y[i] = value;
  if (threadIdx.x == 63) {
    carry[blockIdx.x] = value;
    st_release(&ready[blockIdx.x], 1);
  }
}

// A producer warp and a consumer warp hand one buffer back and forth through two named barriers.
__global__ void __launch_bounds__(64) producer_consumer(int* y, const int* x, int rounds) {
  CUL_SHARED(int, buffer, [32]);
  const int lane = threadIdx.x % 32;
  for (int round = 0; round < rounds; ++round) {
    if (threadIdx.x < 32) {
      if (round > 0) named_barrier_sync(2, 64);
      buffer[lane] = x[round * 32 + lane];
      named_barrier_arrive(1, 64);
    } else {
      named_barrier_sync(1, 64);
      y[round * 32 + lane] = buffer[31 - lane];
      if (round + 1 < rounds) named_barrier_arrive(2, 64);
    }
  }
}

namespace testing {
namespace {

template <class T>
void check_gemm(int m, int n, int k) {
  std::mt19937 random(7);
  const auto matrix = [&](int size) {
    std::vector<T> values(size);
    for (T& value : values) value = from_float<T>(static_cast<float>(static_cast<int>(random() % 9) - 4));
    return values;
  };
  const std::vector<T> a = matrix(m * k), b = matrix(n * k);
  under_every_schedule([&] {
    DeviceArray<T> da(a), db(b), dc(static_cast<size_t>(m) * n);
    ASSERT_EQ("", findings(gemm<T>, dim3(n / kTileN, (m + kTileM - 1) / kTileM), 128, 4 * kTileM * kTileK * sizeof(T),
                           dc, da, db, m, n, k));
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        float sum = 0;  // exact: small integers
        for (int l = 0; l < k; ++l) sum += to_float(a[i * k + l]) * to_float(b[j * k + l]);
        ASSERT_EQ(to_float(from_float<T>(sum)), to_float(dc[i * n + j])) << "row " << i << " column " << j;
      }
  });
}

TEST(CorrectKernels, GemmHalf) { check_gemm<half_t>(37, 128, 96); }
TEST(CorrectKernels, GemmBfloat16) { check_gemm<bfloat16_t>(64, 64, 64); }

TEST(CorrectKernels, SumWithLastBlock) {
  std::vector<int> x(3001);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int>(i * 7 % 101) - 50;
  int expected = 0;
  for (int value : x) expected += value;
  under_every_schedule([&] {
    DeviceArray<int> dx(x), partial(7), total(1);
    DeviceArray<unsigned> ticket(std::vector<unsigned>{0});
    ASSERT_EQ("", findings(sum_blocks, 7, 128, 0, total, partial, ticket, dx, static_cast<int>(x.size())));
    EXPECT_EQ(expected, total[0]);
  });
}

TEST(CorrectKernels, ScanWithBlocksThatWaitForEachOther) {
  constexpr int kBlocks = 9, kSize = kBlocks * 64 - 5;
  std::vector<int> x(kSize), expected(kSize);
  int sum = 0;
  for (int i = 0; i < kSize; ++i) expected[i] = sum += x[i] = i % 13 - 6;
  under_every_schedule(
      [&] {  // reverse starts the last block first: it waits until the others have been started beside it
        DeviceArray<int> dx(x), y(kSize), carry(kBlocks), ready{std::vector<int>(kBlocks)};
        ASSERT_EQ("", findings(scan, kBlocks, 64, 0, y, carry, ready, dx, kSize));
        EXPECT_EQ(expected, y.values());
      });
}

TEST(CorrectKernels, ProducerAndConsumer) {
  std::vector<int> x(5 * 32);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int>(i);
  under_every_schedule([&] {
    DeviceArray<int> dx(x), y(x.size());
    ASSERT_EQ("", findings(producer_consumer, 1, 64, 0, y, dx, 5));
    for (int i = 0; i < 5 * 32; ++i) ASSERT_EQ(i / 32 * 32 + 31 - i % 32, y[i]);
  });
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt

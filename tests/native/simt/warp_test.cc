// Warp-level and block-level instructions against their definitions, written as plain loops over the lanes.
#include "device/atomic.h"
#include "device/barrier.h"
#include "device/warp.h"
#include "harness.h"

namespace culebra::simt {

__global__ void shuffles(uint32_t* y, const uint32_t* x, int amount, int width) {
  const int lane = threadIdx.x;
  y[lane] = __shfl_sync(kFullMask, x[lane], static_cast<int>(x[lane] % 64) - 16, width);
  y[32 + lane] = __shfl_up_sync(kFullMask, x[lane], static_cast<unsigned>(amount), width);
  y[64 + lane] = __shfl_down_sync(kFullMask, x[lane], static_cast<unsigned>(amount), width);
  y[96 + lane] = __shfl_xor_sync(kFullMask, x[lane], amount, width);
}

template <class T>
__global__ void shuffle_of(T* y, const T* x) {
  y[threadIdx.x] = __shfl_xor_sync(kFullMask, x[threadIdx.x], 5);
}

__global__ void votes(uint32_t* y, const uint32_t* x, uint32_t mask) {
  const int lane = threadIdx.x;
  if (!(mask >> lane & 1)) return;
  const uint32_t value = x[lane] % 4;
  int all_equal = -1;
  y[lane] = __ballot_sync(mask, value == 1);
  y[32 + lane] = static_cast<uint32_t>(__any_sync(mask, value == 1));
  y[64 + lane] = static_cast<uint32_t>(__all_sync(mask, value < 4));
  y[96 + lane] = __match_any_sync(mask, value);
  y[128 + lane] = __match_all_sync(mask, value, &all_equal);
  y[160 + lane] = static_cast<uint32_t>(all_equal);
  y[192 + lane] = __match_all_sync(mask, 77ull, &all_equal);
  y[224 + lane] = static_cast<uint32_t>(all_equal);
}

__global__ void reductions(uint32_t* y, const uint32_t* x, uint32_t mask) {
  const int lane = threadIdx.x;
  if (!(mask >> lane & 1)) return;
  const uint32_t value = x[lane];
  y[lane] = __reduce_add_sync(mask, value);
  y[32 + lane] = __reduce_min_sync(mask, value);
  y[64 + lane] = __reduce_max_sync(mask, value);
  y[96 + lane] = static_cast<uint32_t>(__reduce_min_sync(mask, static_cast<int>(value)));
  y[128 + lane] = static_cast<uint32_t>(__reduce_max_sync(mask, static_cast<int>(value)));
  y[160 + lane] = __reduce_and_sync(mask, value | 1u);
  y[192 + lane] = __reduce_or_sync(mask, value & 0xffu);
  y[224 + lane] = __reduce_xor_sync(mask, value);
}

__global__ void warp_helpers(int* y, const int* x) {
  const int i = threadIdx.x;
  y[i] = warp_sum(x[i]);
  y[64 + i] = warp_max<8>(x[i]);
  y[128 + i] = warp_min<16>(x[i]);
  y[192 + i] = warp_inclusive_sum(x[i]);
}

// Two halves of a warp run different collectives at once, then meet.
__global__ void independent_halves(int* y) {
  const int lane = threadIdx.x;
  int value = lane;
  if (lane < 16) {
    value = __shfl_xor_sync(0x0000ffffu, value, 15);
    value = __shfl_xor_sync(0x0000ffffu, value, 15);
  } else {
    value += __popc(__ballot_sync(0xffff0000u, 1));
  }
  y[lane] = __shfl_sync(kFullMask, value, 31 - lane);
}

__global__ void lanes_that_have_exited(int* y) {
  CUL_SHARED(int, s, [32]);
  if (threadIdx.x % 2) return;
  s[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncwarp();
  y[threadIdx.x] = s[30 - threadIdx.x];
}

__global__ void barrier_votes(int* y, int n) {
  const int i = threadIdx.x;
  y[i] = __syncthreads_count(i < n);
  y[96 + i] = __syncthreads_or(i < n);
  y[192 + i] = __syncthreads_and(i < n);
}

__global__ void barrier_after_some_exited(int* y) {
  if (threadIdx.x >= 40) return;
  y[threadIdx.x] = __syncthreads_count(1);
}

template <class T>
__global__ void atomics(T* y, T* old) {
  const T i = static_cast<T>(threadIdx.x);
  atomicAdd(&y[0], i);
  atomicMax(&y[1], i);
  atomicMin(&y[2], i);
  old[threadIdx.x] = atomicExch(&y[3], i);
  atomicCAS(&y[4], T{0}, i + T{1});
}

__global__ void bit_atomics(unsigned* y) {
  atomicOr(&y[0], 1u << threadIdx.x);
  atomicAnd(&y[1], ~(1u << threadIdx.x));
  atomicXor(&y[2], 3u << threadIdx.x);
  atomicAdd(&y[3], 0xffffffffu);  // wraps
}

__global__ void indices(unsigned* y) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  y[block * threads + thread] = block * threads + thread;
}

namespace testing {
namespace {

std::vector<uint32_t> random_words(int n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> values(n);
  for (uint32_t& value : values) value = random();
  return values;
}

TEST(Warp, Shuffles) {
  const std::vector<uint32_t> x = random_words(32, 3);
  under_every_schedule([&] {
    for (const int width : {1, 2, 4, 8, 16, 32})
      for (const int amount : {0, 1, 3, 8, 17, 31}) {
        DeviceArray<uint32_t> dx(x), y(128);
        ASSERT_EQ("", findings(shuffles, 1, 32, 0, y, dx, amount, width));
        for (int lane = 0; lane < 32; ++lane) {
          const int begin = lane / width * width, end = begin + width;
          const int index = static_cast<int>(x[lane] % 64) - 16;
          ASSERT_EQ(x[begin + ((index % width) + width) % width], y[lane]) << "index " << index << " width " << width;
          ASSERT_EQ(x[lane - amount >= begin ? lane - amount : lane], y[32 + lane])
              << "up " << amount << " width " << width;
          ASSERT_EQ(x[lane + amount < end ? lane + amount : lane], y[64 + lane])
              << "down " << amount << " width " << width;
          // A butterfly may reach an earlier segment, never a later one.
          ASSERT_EQ(x[(lane ^ amount) < end ? lane ^ amount : lane], y[96 + lane])
              << "xor " << amount << " width " << width;
        }
      }
  });
}

TEST(Warp, ShufflesOfEveryWidth) {
  const auto check = [](auto zero) {
    using T = decltype(zero);
    std::vector<T> x(32);
    for (int i = 0; i < 32; ++i) x[i] = static_cast<T>(i * 3 - 40);
    DeviceArray<T> dx(x), y(32);
    ASSERT_EQ("", findings(shuffle_of<T>, 1, 32, 0, y, dx));
    for (int i = 0; i < 32; ++i) ASSERT_EQ(x[i ^ 5], y[i]);
  };
  check(short{});
  check(int{});
  check(float{});
  check(double{});
  check(0ll);
}

TEST(Warp, Votes) {
  const std::vector<uint32_t> x = random_words(32, 4);
  for (const uint32_t mask : {0xffffffffu, 0x0000ffffu, 0x80000001u, 0x00f0f00fu, 0x00000100u}) {
    DeviceArray<uint32_t> dx(x), y(256);
    ASSERT_EQ("", findings(votes, 1, 32, 0, y, dx, mask));
    uint32_t ballot = 0, first = 4;
    bool equal = true;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      ballot |= static_cast<uint32_t>(x[lane] % 4 == 1) << lane;
      if (first == 4) first = x[lane] % 4;
      equal &= x[lane] % 4 == first;
    }
    for (int lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      uint32_t match = 0;
      for (int other = 0; other < 32; ++other) match |= (mask >> other & 1u & (x[other] % 4 == x[lane] % 4)) << other;
      EXPECT_EQ(ballot, y[lane]);
      EXPECT_EQ(ballot != 0, y[32 + lane]);
      EXPECT_EQ(1u, y[64 + lane]);
      EXPECT_EQ(match, y[96 + lane]);
      EXPECT_EQ(equal ? mask : 0, y[128 + lane]);
      EXPECT_EQ(equal, y[160 + lane]);
      EXPECT_EQ(mask, y[192 + lane]);
      EXPECT_EQ(1u, y[224 + lane]);
    }
  }
}

TEST(Warp, Reductions) {
  const std::vector<uint32_t> x = random_words(32, 5);
  for (const uint32_t mask : {0xffffffffu, 0x0ff00000u, 0x80000000u}) {
    DeviceArray<uint32_t> dx(x), y(256);
    ASSERT_EQ("", findings(reductions, 1, 32, 0, y, dx, mask));
    uint32_t add = 0, low = UINT32_MAX, high = 0, all = UINT32_MAX, any = 0, parity = 0;
    int32_t signed_low = INT32_MAX, signed_high = INT32_MIN;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      const auto value = static_cast<int32_t>(x[lane]);
      add += x[lane];
      low = std::min(low, x[lane]);
      high = std::max(high, x[lane]);
      signed_low = std::min(signed_low, value);
      signed_high = std::max(signed_high, value);
      all &= x[lane] | 1u;
      any |= x[lane] & 0xffu;
      parity ^= x[lane];
    }
    const uint32_t expected[] = {add, low, high,  static_cast<uint32_t>(signed_low), static_cast<uint32_t>(signed_high),
                                 all, any, parity};
    for (int lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      for (int i = 0; i < 8; ++i) EXPECT_EQ(expected[i], y[32 * i + lane]) << "reduction " << i;
    }
  }
}

TEST(Warp, Helpers) {
  std::vector<int> x(64);
  for (int i = 0; i < 64; ++i) x[i] = i * 37 % 101 - 50;
  DeviceArray<int> dx(x), y(256);
  ASSERT_EQ("", findings(warp_helpers, 1, 64, 0, y, dx));
  for (int i = 0; i < 64; ++i) {
    int sum = 0, scan = 0, high = INT32_MIN, low = INT32_MAX;
    for (int j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) sum += x[j];
    for (int j = i / 32 * 32; j <= i; ++j) scan += x[j];
    for (int j = i / 8 * 8; j < i / 8 * 8 + 8; ++j) high = std::max(high, x[j]);
    for (int j = i / 16 * 16; j < i / 16 * 16 + 16; ++j) low = std::min(low, x[j]);
    EXPECT_EQ(sum, y[i]);
    EXPECT_EQ(high, y[64 + i]);
    EXPECT_EQ(low, y[128 + i]);
    EXPECT_EQ(scan, y[192 + i]);
  }
}

TEST(Warp, IndependentHalves) {
  under_every_schedule([] {
    DeviceArray<int> y(32);
    ASSERT_EQ("", findings(independent_halves, 1, 32, 0, y));
    for (int lane = 0; lane < 32; ++lane) EXPECT_EQ(31 - lane < 16 ? 31 - lane : 31 - lane + 16, y[lane]);
  });
}

TEST(Warp, SyncwarpCountsExitedLanesAsArrived) {
  under_every_schedule([] {
    DeviceArray<int> y(32);
    ASSERT_EQ("", findings(lanes_that_have_exited, 1, 32, 0, y));
    for (int lane = 0; lane < 32; lane += 2) EXPECT_EQ(30 - lane, y[lane]);
  });
}

TEST(Block, BarrierVotes) {
  under_every_schedule([] {
    for (const int n : {0, 1, 50, 96}) {
      DeviceArray<int> y(288);
      ASSERT_EQ("", findings(barrier_votes, 1, 96, 0, y, n));
      for (int i = 0; i < 96; ++i) {
        EXPECT_EQ(n, y[i]);
        EXPECT_EQ(n > 0, y[96 + i]);
        EXPECT_EQ(n == 96, y[192 + i]);
      }
    }
  });
}

TEST(Block, BarrierAfterSomeExited) {
  under_every_schedule([] {
    DeviceArray<int> y(64);
    ASSERT_EQ("", findings(barrier_after_some_exited, 1, 64, 0, y));
    for (int i = 0; i < 40; ++i) EXPECT_EQ(40, y[i]);
  });
}

TEST(Block, IndicesInThreeDimensions) {
  under_every_schedule([] {
    constexpr unsigned kSize = 3 * 2 * 2 * 5 * 3 * 4;
    DeviceArray<unsigned> y(kSize);
    ASSERT_EQ("", findings(indices, dim3(3, 2, 2), dim3(5, 3, 4), 0, y));
    for (unsigned i = 0; i < kSize; ++i) ASSERT_EQ(i, y[i]);
  });
}

TEST(Atomic, OfEveryType) {
  const auto check = [](auto zero) {
    using T = decltype(zero);
    DeviceArray<T> y(std::vector<T>{0, 0, 100, 1000, 0}), old(64);
    ASSERT_EQ("", findings(atomics<T>, 1, 64, 0, y, old));
    EXPECT_EQ(T{63 * 64 / 2}, y[0]);
    EXPECT_EQ(T{63}, y[1]);
    EXPECT_EQ(T{0}, y[2]);
    T sum = y[3];  // every value went in once and came out once, or is the last
    for (int i = 0; i < 64; ++i) sum += old[i];
    EXPECT_EQ(T{1000 + 63 * 64 / 2}, sum);
    EXPECT_LE(T{1}, y[4]);
    EXPECT_GE(T{64}, y[4]);
  };
  under_every_schedule([&] {
    check(0);
    check(0u);
    check(0ll);
    check(0ull);
    check(0.0f);
    DeviceArray<unsigned> y(std::vector<unsigned>{0, 0xffffffffu, 0, 0});
    ASSERT_EQ("", findings(bit_atomics, 1, 32, 0, y));
    EXPECT_EQ((std::vector<unsigned>{0xffffffffu, 0, 1, static_cast<unsigned>(-32)}), y.values());
  });
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt

// One fault per kernel. Each is caught with the message that names it, under every schedule; without the fault the kernel is clean.
// These faults need no hooks: emulated instructions and the scheduler find them.
#include "device/async_copy.h"
#include "device/atomic.h"
#include "device/barrier.h"
#include "device/mma.h"
#include "device/vector.h"
#include "device/warp.h"
#include "harness.h"

namespace culebra::simt {

template <bool kFault>
__global__ void divergent_barrier(int* y) {
  CUL_SHARED(int, s, [64]);
  s[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kFault && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  y[threadIdx.x] = s[63 - threadIdx.x];
}

template <bool kFault>
__global__ void barrier_that_some_never_reach(int* y) {
  if (threadIdx.x < 32 || !kFault) named_barrier_sync(1, 64);
  __syncthreads();
  y[threadIdx.x] = 1;
}

template <bool kFault>
__global__ void named_barrier_with_two_counts(int* y) {
  named_barrier_sync(1, kFault && threadIdx.x < 32 ? 32 * 3 : 64);
  y[threadIdx.x] = 1;
}

template <bool kFault>
__global__ void shuffle_mask(int* y) {
  int value = static_cast<int>(threadIdx.x);
  if (threadIdx.x < 16) value = __shfl_xor_sync(kFault ? kFullMask : 0xffffu, value, 1);
  __syncwarp();
  y[threadIdx.x] = value;
}

template <bool kFault>
__global__ void shuffle_from_outside_the_mask(int* y) {
  int value = static_cast<int>(threadIdx.x);
  if (threadIdx.x < 16) value = __shfl_xor_sync(0xffffu, value, kFault ? 16 : 8);
  y[threadIdx.x] = value;
}

template <bool kFault>
__global__ void lane_not_in_its_mask(int* y) {
  if (threadIdx.x < 32) y[threadIdx.x] = __any_sync(kFault ? 0x7fffffffu : kFullMask, 1);
}

template <bool kFault>
__global__ void divergent_collective(int* y) {
  int value = static_cast<int>(threadIdx.x);
  if (kFault && threadIdx.x % 2) {
    value = __shfl_xor_sync(kFullMask, value, 2);
  } else {
    value = __shfl_down_sync(kFullMask, value, 1);
  }
  y[threadIdx.x] = value;
}

template <bool kFault>
__global__ void exit_before_a_collective(int* y) {
  if (kFault && threadIdx.x == 7) return;
  y[threadIdx.x] = warp_sum(1);
}

template <bool kFault>
__global__ void copy_never_waited_for(int* y, const int* x) {
  CUL_SHARED(int, s, [256]);
  cp_async<16>(shared_address(s + threadIdx.x * 4), x + threadIdx.x * 4);
  cp_async_commit();
  if (!kFault) cp_async_wait<0>();
  y[threadIdx.x] = 0;
}

template <bool kFault>
__global__ void copy_never_committed(int* y, const int* x) {
  CUL_SHARED(int, s, [256]);
  cp_async<16>(shared_address(s + threadIdx.x * 4), x + threadIdx.x * 4);
  if (!kFault) cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = 0;
}

template <bool kFault>
__global__ void copy_past_shared(int* y, const int* x) {
  CUL_DYNAMIC_SHARED(int, s, 16);  // 1024 bytes
  cp_async<16>(shared_address(s + threadIdx.x * 4 + (kFault ? 4 : 0)), x + threadIdx.x * 4);
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = 0;
}

template <bool kFault>
__global__ void copy_past_global(int* y, const int* x) {
  CUL_SHARED(int, s, [256]);
  cp_async<16>(shared_address(s + threadIdx.x * 4), x + threadIdx.x * 4 + (kFault ? 4 : 0));
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = 0;
}

template <bool kFault>
__global__ void misaligned_copy(int* y, const int* x) {
  CUL_SHARED(int, s, [256]);
  cp_async<16>(shared_address(s + threadIdx.x * 4), x + threadIdx.x * 4 - (kFault && threadIdx.x ? 1 : 0));
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = 0;
}

template <bool kFault>
__global__ void misaligned_matrix_row(int* y) {
  CUL_SHARED(uint32_t, s, [64 * 8]);
  for (int i = 0; i < 8; ++i) s[threadIdx.x * 8 + i] = 0;
  __syncthreads();
  uint32_t r[2];
  ldmatrix_x2(r, shared_address(s + threadIdx.x % 32 * 4 + (kFault ? 1 : 0)));
  y[threadIdx.x] = static_cast<int>(r[0] + r[1]);
}

template <bool kFault>
__global__ void misaligned_vector(int* y, const int* x) {
  const Vector<int, 2> v = load_vector<2>(x + threadIdx.x * 2 + (kFault ? 1 : 0));
  y[threadIdx.x] = v[0];
}

template <bool kFault>
__global__ void wait_for_a_flag_nobody_sets(int* y, int* flag) {
  if (threadIdx.x == 0 && !kFault) st_release(flag, 1);
  if (threadIdx.x == 63) spin_until([&] { return ld_acquire(flag) == 1; });
  y[threadIdx.x] = 1;
}

template <bool kFault>
__global__ void lock_that_is_never_released(int* y, int* lock) {
  if (threadIdx.x % 32 == 0) {
    while (atomicCAS(lock, 0, 1) != 0) {
    }
    if (!kFault) st_release(lock, 0);
  }
  y[threadIdx.x] = 1;
}

template <bool kFault>
__global__ void too_much_static_shared(int* y) {
  CUL_SHARED(char, s, [kFault ? 228 << 10 : 128 << 10]);
  s[threadIdx.x] = 1;
  y[threadIdx.x] = s[threadIdx.x];
}

namespace testing {
namespace {

#define EXPECT_CAUGHT(kernel, shared_bytes, message, ...)                                                \
  under_every_schedule([&] {                                                                             \
    EXPECT_EQ("", findings(kernel<false>, 1, 64, shared_bytes, __VA_ARGS__));                            \
    EXPECT_NE(std::string::npos, findings(kernel<true>, 1, 64, shared_bytes, __VA_ARGS__).find(message)) \
        << findings(kernel<true>, 1, 64, shared_bytes, __VA_ARGS__);                                     \
  })

class PlantedFaults : public ::testing::Test {
 protected:
  DeviceArray<int> y_{64};
  DeviceArray<int> x_{std::vector<int>(256, 3)};
  DeviceArray<int> flag_{std::vector<int>{0}};
};

TEST_F(PlantedFaults, DivergentBarrier) { EXPECT_CAUGHT(divergent_barrier, 0, "divergent barrier", y_); }

TEST_F(PlantedFaults, Deadlock) {
  EXPECT_CAUGHT(barrier_that_some_never_reach, 0, "deadlock: no thread can run", y_);
  const std::string text = findings(barrier_that_some_never_reach<true>, 1, 64, 0, y_);
  EXPECT_NE(std::string::npos, text.find("32 (0..31) wait for the other threads of the named barrier in named barrier "
                                         "sync at planted_faults_test.cc:"))
      << text;
  EXPECT_NE(std::string::npos,
            text.find("32 (32..63) wait for the rest of the block in __syncthreads at planted_faults_test.cc:"))
      << text;
}

TEST_F(PlantedFaults, NamedBarrierCounts) {
  EXPECT_CAUGHT(named_barrier_with_two_counts, 0, "barrier 1 is used with", y_);
}
TEST_F(PlantedFaults, ShuffleMaskNamesAbsentLanes) { EXPECT_CAUGHT(shuffle_mask, 0, "divergent warp", y_); }
TEST_F(PlantedFaults, ShuffleReadsOutsideTheMask) {
  EXPECT_CAUGHT(shuffle_from_outside_the_mask, 0, "which is not in mask 0x0000ffff", y_);
}
TEST_F(PlantedFaults, LaneNotInItsMask) {
  EXPECT_CAUGHT(lane_not_in_its_mask, 0, "lane 31 calls with mask 0x7fffffff, which does not name it", y_);
}
TEST_F(PlantedFaults, DivergentCollective) { EXPECT_CAUGHT(divergent_collective, 0, "divergent warp", y_); }

TEST_F(PlantedFaults, ExitBeforeACollective) {
  under_every_schedule([&] {
    EXPECT_EQ("", findings(exit_before_a_collective<false>, 1, 64, 0, y_));
    const std::string text = findings(exit_before_a_collective<true>, 1, 64, 0, y_);
    EXPECT_TRUE(text.find("which exits") != std::string::npos || text.find("which have exited") != std::string::npos)
        << text;
  });
}

TEST_F(PlantedFaults, CopyNeverWaitedFor) {
  EXPECT_CAUGHT(copy_never_waited_for, 0, "exits without waiting for this copy", y_, x_);
}
TEST_F(PlantedFaults, CopyNeverCommitted) {
  EXPECT_CAUGHT(copy_never_committed, 0, "exits without committing this copy", y_, x_);
}
TEST_F(PlantedFaults, CopyPastShared) {
  EXPECT_CAUGHT(copy_past_shared, 1024, "they start 1024 bytes into dynamic shared memory, which has 1024", y_, x_);
}
TEST_F(PlantedFaults, CopyPastGlobal) {
  EXPECT_CAUGHT(copy_past_global, 0, "0 bytes past the end of the allocation of 1024 bytes", y_, x_);
}
TEST_F(PlantedFaults, MisalignedCopy) { EXPECT_CAUGHT(misaligned_copy, 0, "is not aligned to 16 bytes", y_, x_); }
TEST_F(PlantedFaults, MisalignedMatrixRow) {
  EXPECT_CAUGHT(misaligned_matrix_row, 0, "is not aligned to 16 bytes", y_);
}
TEST_F(PlantedFaults, MisalignedVector) {
  EXPECT_CAUGHT(misaligned_vector, 0, "which is not aligned to 8 bytes", y_, x_);
}
TEST_F(PlantedFaults, TooMuchStaticShared) {
  EXPECT_CAUGHT(too_much_static_shared, 0, "s brings the block to 233472 bytes of shared memory", y_);
}

TEST_F(PlantedFaults, Livelock) {
  ConfigScope scope([](Config& config) { config.max_idle_spins = 10'000; });
  under_every_schedule([&] {
    flag_[0] = 0;
    EXPECT_EQ("", findings(wait_for_a_flag_nobody_sets<false>, 1, 64, 0, y_, flag_));
    flag_[0] = 0;
    EXPECT_NE(std::string::npos, findings(wait_for_a_flag_nobody_sets<true>, 1, 64, 0, y_, flag_).find("livelock"));
    flag_[0] = 0;
    EXPECT_EQ("", findings(lock_that_is_never_released<false>, 1, 64, 0, y_, flag_));
    EXPECT_NE(std::string::npos, findings(lock_that_is_never_released<true>, 1, 64, 0, y_, flag_).find("livelock"));
  });
}

TEST_F(PlantedFaults, LaunchesThatNoDeviceTakes) {
  const auto refusal = [&](dim3 grid, dim3 block, size_t bytes) {
    return findings(shuffle_mask<false>, grid, block, bytes, y_);
  };
  EXPECT_NE(std::string::npos, refusal(0, 64, 0).find("invalid launch"));
  EXPECT_NE(std::string::npos, refusal(dim3(1, 65536), 64, 0).find("grid (1, 65536, 1)"));
  EXPECT_NE(std::string::npos, refusal(1, dim3(32, 33), 0).find("block (32, 33, 1)"));
  EXPECT_NE(std::string::npos,
            refusal(1, 64, 233473 - 1024).find("232449 bytes of dynamic shared memory (limit 232448)"));
  EXPECT_NE(std::string::npos, findings(copy_past_shared<false>, 1, 64, 0, y_, x_).find("was launched with 0 bytes"));
}

TEST_F(PlantedFaults, TheEmulatorRunsOnAfterThem) {
  for (int i = 0; i < 200; ++i) ASSERT_NE("", findings(divergent_barrier<true>, 4, 64, 0, y_));
  EXPECT_EQ("", findings(divergent_barrier<false>, 1, 64, 0, y_));
  EXPECT_EQ(63, y_[0]);
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt

// Faults in plain loads and stores, which the hooks see. Compiled where hooks are required to be active: if they are not, these
// tests fail.
#include "device/async_copy.h"
#include "device/atomic.h"
#include "device/barrier.h"
#include "device/mma.h"
#include "device/vector.h"
#include "device/warp.h"
#include "harness.h"

namespace culebra::simt {

template <bool kFault>
__global__ void missing_barrier(int* y, const int* x) {
  CUL_SHARED(int, s, [64]);
  s[threadIdx.x] = x[threadIdx.x];
  if (!kFault) __syncthreads();
  y[threadIdx.x] = s[threadIdx.x ^ 32];
}

template <bool kFault>
__global__ void missing_syncwarp(int* y, const int* x) {
  CUL_SHARED(int, s, [64]);
  s[threadIdx.x] = x[threadIdx.x];
  if (!kFault) __syncwarp();
  y[threadIdx.x] = s[threadIdx.x ^ 1];
}

template <bool kFault>
__global__ void missing_wait(int* y, const int* x) {
  CUL_SHARED(int, s, [256]);
  cp_async<16>(shared_address(s + threadIdx.x * 4), x + threadIdx.x * 4);
  cp_async_commit();
  if (!kFault) cp_async_wait<0>();
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
  if (kFault) cp_async_wait<0>();
}

template <bool kFault>
__global__ void wait_for_the_wrong_group(int* y, const int* x) {
  CUL_SHARED(int, s, [2][256]);
  for (int stage = 0; stage < 2; ++stage) {
    cp_async<16>(shared_address(s[stage] + threadIdx.x * 4), x + threadIdx.x * 4);
    cp_async_commit();
  }
  cp_async_wait<kFault ? 2 : 1>();
  __syncthreads();
  y[threadIdx.x] = s[0][threadIdx.x];
  cp_async_wait<0>();
}

template <bool kFault>
__global__ void wait_without_barrier(int* y, const int* x) {
  CUL_SHARED(int, s, [256]);
  cp_async<16>(shared_address(s + threadIdx.x * 4), x + threadIdx.x * 4);
  cp_async_commit();
  cp_async_wait<0>();
  if (!kFault) __syncthreads();
  y[threadIdx.x] = s[255 - threadIdx.x];
}

// The buffer is refilled while slow warps still read it: the fault that random schedules mostly miss.
template <bool kFault>
__global__ void refill_too_early(int* y, const int* x) {
  CUL_SHARED(int, s, [64]);
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    s[threadIdx.x] = x[threadIdx.x] + round;
    __syncthreads();
    sum += s[63 - threadIdx.x];
    if (!kFault) __syncthreads();
  }
  y[threadIdx.x] = sum;
}

template <bool kFault>
__global__ void refill_by_copy_too_early(int* y, const int* x) {
  CUL_SHARED(int, s, [256]);
  int sum = 0;
  for (int round = 0; round < 2; ++round) {
    cp_async<16>(shared_address(s + threadIdx.x * 4), x + threadIdx.x * 4);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    sum += s[255 - threadIdx.x];
    if (!kFault) __syncthreads();
  }
  y[threadIdx.x] = sum;
}

template <bool kFault>
__global__ void shared_overrun(int* y) {
  CUL_DYNAMIC_SHARED(int, s, 16);  // 256 bytes
  s[threadIdx.x + (kFault ? 1 : 0)] = 1;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x + (kFault ? 1 : 0)];
}

template <bool kFault>
__global__ void static_shared_overrun(int* y) {
  CUL_SHARED(int, first, [64]);
  CUL_SHARED(int, second, [64]);
  int* p = first;
  p[threadIdx.x + (kFault ? 1 : 0)] = 1;
  second[threadIdx.x] = 1;
  y[threadIdx.x] = second[threadIdx.x];
}

template <bool kFault>
__global__ void global_overrun(int* y) {
  y[threadIdx.x + (kFault ? 1 : 0)] = 1;
}

template <bool kFault>
__global__ void global_underrun(int* y, const int* x) {
  y[threadIdx.x] = x[static_cast<int>(threadIdx.x) - (kFault ? 1 : 0)];
}

template <bool kFault>
__global__ void uninitialised_shared(int* y) {
  CUL_SHARED(int, s, [64]);
  if (!kFault || threadIdx.x < 63) s[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}

template <bool kFault>
__global__ void uninitialised_global(int* y, const int* x, const int* undefined) {
  y[threadIdx.x] = (kFault ? undefined : x)[threadIdx.x];
}

template <bool kFault>
__global__ void uninitialised_matrix(int* y) {
  CUL_SHARED(uint32_t, s, [128]);
  for (int i = threadIdx.x; i < (kFault ? 127 : 128); i += 64) s[i] = 0;
  __syncthreads();
  uint32_t r[4];
  ldmatrix_x4(r, shared_address(s + threadIdx.x % 32 * 4));
  y[threadIdx.x] = static_cast<int>(r[0] + r[1] + r[2] + r[3]);
}

template <bool kFault>
__global__ void race_between_warps(int* y) {
  CUL_SHARED(int, count);
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    if (kFault) {
      count = count + 1;
    } else {
      atomicAdd(&count, 1);
    }
  }
  __syncthreads();
  y[threadIdx.x] = count;
}

template <bool kFault>
__global__ void race_between_blocks(int* y) {
  y[kFault ? threadIdx.x : blockIdx.x * 64 + threadIdx.x] = static_cast<int>(blockIdx.x);
}

// A flag without the fence before it.
template <bool kFault>
__global__ void publish_without_fence(int* y, int* data, unsigned* flag) {
  if (blockIdx.x == 0) {
    data[threadIdx.x] = static_cast<int>(threadIdx.x);
    __syncthreads();
    if (!kFault && threadIdx.x == 0) __threadfence();
    if (threadIdx.x == 0) atomicAdd(flag, 1u);
    return;
  }
  if (threadIdx.x == 0) spin_until([&] { return ld_acquire(flag) == 1; });
  __syncthreads();
  y[threadIdx.x] = data[threadIdx.x];
}

template <bool kFault>
__global__ void read_anothers_local_memory(int* y) {
  CUL_SHARED(int*, pointer);
  int local[4] = {1, 2, 3, 4};
  asm volatile("" ::"r"(local) : "memory");  // local lies in memory
  if (threadIdx.x == 0) pointer = local;
  __syncthreads();
  y[threadIdx.x] = kFault ? *pointer : local[0];
  __syncthreads();
}

template <bool kFault>
__global__ void misaligned_plain_vector(int* y, const int* x) {
  const uint4 v = *reinterpret_cast<const uint4*>(x + (kFault ? 1 : 0));
  y[threadIdx.x] = static_cast<int>(v.x + v.w);
}

template <bool kFault>
__global__ void local_array_overrun(int* y, int n) {
  int a[4];
  for (int i = 0; i < n + (kFault ? 1 : 0); ++i) a[i] = i;
  y[threadIdx.x] = a[threadIdx.x % 4];
}

__global__ void write_a_constant(int* y) {
  static const int table[4] = {1, 2, 3, 4};
  const_cast<int*>(table)[threadIdx.x % 4] = 1;
  y[threadIdx.x] = table[0];
}

__global__ void read_constants(int* y) {
  static constexpr int kTable[64] = {5, 6, 7};
  y[threadIdx.x] = kTable[threadIdx.x];
}

namespace testing {
namespace {

#define EXPECT_CAUGHT_ON(blocks, kernel, shared_bytes, message, ...)                                         \
  under_every_schedule([&] {                                                                                 \
    EXPECT_EQ("", findings(kernel<false>, blocks, 64, shared_bytes, __VA_ARGS__));                           \
    const std::string text = findings(kernel<true>, blocks, 64, shared_bytes, __VA_ARGS__);                  \
    EXPECT_NE(std::string::npos, text.find(message)) << text;                                                \
    EXPECT_NE(std::string::npos, text.find(" at checked_access_test.cc:")) << "no source line in: " << text; \
  })
#define EXPECT_CAUGHT(kernel, shared_bytes, message, ...) \
  EXPECT_CAUGHT_ON(1, kernel, shared_bytes, message, __VA_ARGS__)

class CheckedAccess : public ::testing::Test {
 protected:
  DeviceArray<int> y_{64};
  DeviceArray<int> x_{std::vector<int>(256, 3)};
  DeviceArray<int> undefined_{64};
};

TEST(Hooks, AreActive) { ASSERT_TRUE(hooks_linked()); }

TEST_F(CheckedAccess, MissingBarrier) { EXPECT_CAUGHT(missing_barrier, 0, "read", y_, x_); }
TEST_F(CheckedAccess, MissingBarrierNamesBothPlaces) {
  const std::string text = findings(missing_barrier<true>, 1, 64, 0, y_, x_);
  EXPECT_NE(std::string::npos, text.find("race on shared memory: this read is not ordered after the write by thread"))
      << text;
}
TEST_F(CheckedAccess, MissingSyncwarp) { EXPECT_CAUGHT(missing_syncwarp, 0, "shared memory", y_, x_); }
TEST_F(CheckedAccess, MissingWait) {
  EXPECT_CAUGHT(missing_wait, 0, "while an asynchronous copy into it is in flight: the wait is missing", y_, x_);
}
TEST_F(CheckedAccess, WaitForTheWrongGroup) {
  EXPECT_CAUGHT(wait_for_the_wrong_group, 0, "the wait is missing", y_, x_);
}
TEST_F(CheckedAccess, WaitWithoutBarrier) { EXPECT_CAUGHT(wait_without_barrier, 0, "shared memory", y_, x_); }
TEST_F(CheckedAccess, RefillTooEarly) { EXPECT_CAUGHT(refill_too_early, 0, "race on shared memory", y_, x_); }
TEST_F(CheckedAccess, RefillByCopyTooEarly) { EXPECT_CAUGHT(refill_by_copy_too_early, 0, "shared memory", y_, x_); }
TEST_F(CheckedAccess, SharedOverrun) {
  EXPECT_CAUGHT(shared_overrun, 256, "256 bytes into dynamic shared memory, which has 256", y_);
}
TEST_F(CheckedAccess, StaticSharedOverrun) {
  EXPECT_CAUGHT(static_shared_overrun, 0, "256 bytes into first, which has 256", y_);
}
TEST_F(CheckedAccess, GlobalOverrun) {
  EXPECT_CAUGHT(global_overrun, 0, "0 bytes past the end of the allocation of 256 bytes", y_);
}
TEST_F(CheckedAccess, GlobalUnderrun) {
  EXPECT_CAUGHT(global_underrun, 0, "4 bytes before the allocation of 1024 bytes", y_, x_);
}
TEST_F(CheckedAccess, UninitialisedShared) {
  EXPECT_CAUGHT(uninitialised_shared, 0, "read of uninitialised shared memory", y_);
}
TEST_F(CheckedAccess, UninitialisedGlobal) {
  EXPECT_CAUGHT(uninitialised_global, 0, "read of uninitialised global memory", y_, x_, undefined_ + 0);
}
TEST_F(CheckedAccess, UninitialisedMatrix) {
  EXPECT_CAUGHT(uninitialised_matrix, 0, "read of uninitialised shared memory", y_);
}
TEST_F(CheckedAccess, RaceBetweenWarps) { EXPECT_CAUGHT(race_between_warps, 0, "race on shared memory", y_); }
TEST_F(CheckedAccess, MisalignedVector) { EXPECT_CAUGHT(misaligned_plain_vector, 0, "aligned", y_, x_); }
TEST_F(CheckedAccess, LocalArrayOverrun) {
  EXPECT_CAUGHT(local_array_overrun, 0, "index outside the bounds of its array", y_, 4);
}
TEST_F(CheckedAccess, LocalMemoryOfAnotherThread) {
  EXPECT_CAUGHT(read_anothers_local_memory, 0, "local memory of thread 0", y_);
}

TEST_F(CheckedAccess, RaceBetweenBlocks) {
  DeviceArray<int> y(192);
  EXPECT_CAUGHT_ON(3, race_between_blocks, 0,
                   "race on global memory: this write is not ordered after the write by thread", y);
}

TEST_F(CheckedAccess, PublishWithoutFence) {
  DeviceArray<unsigned> flag(std::vector<unsigned>{0});
  under_every_schedule([&] {
    DeviceArray<int> data(64);
    flag[0] = 0;
    EXPECT_EQ("", findings(publish_without_fence<false>, 2, 64, 0, y_, data, flag));
    flag[0] = 0;
    const std::string text = findings(publish_without_fence<true>, 2, 64, 0, y_, data, flag);
    EXPECT_NE(std::string::npos, text.find("race on global memory: this read is not ordered after the write by thread"))
        << text;
  });
}

TEST_F(CheckedAccess, ConstantsAreReadOnly) {
  EXPECT_EQ("", findings(read_constants, 1, 64, 0, y_));
  EXPECT_EQ(7, y_[2]);
  const std::string text = findings(write_a_constant, 1, 64, 0, y_);
  EXPECT_NE(std::string::npos, text.find("outside every device allocation")) << text;
}

TEST_F(CheckedAccess, MemoryThatWasFreed) {
  auto freed = std::make_unique<DeviceArray<int>>(std::vector<int>(64, 1));
  const int* pointer = freed->get();
  EXPECT_EQ("", findings(uninitialised_global<false>, 1, 64, 0, y_, pointer, pointer));
  unregister_global(freed->get());
  const std::string text = findings(uninitialised_global<false>, 1, 64, 0, y_, pointer, pointer);
  EXPECT_NE(std::string::npos, text.find("outside every device allocation")) << text;
}

TEST_F(CheckedAccess, InitialisationIsPerByteAndCanBeTakenBack) {
  DeviceArray<int> z(64);
  mark_initialized(z + 3, 5);  // one int and a byte
  const auto message = [&](int i) { return findings(uninitialised_global<false>, 1, 1, 0, y_, z + i, z + i); };
  EXPECT_EQ("", message(3));
  EXPECT_NE("", message(2));
  EXPECT_NE("", message(4));
  mark_initialized(z, z.bytes());
  EXPECT_EQ("", message(63));
  mark_uninitialized(z + 63, 4);
  EXPECT_NE("", message(63));
  EXPECT_EQ("", message(62));
}

TEST_F(CheckedAccess, RacesCanBeSwitchedOff) {
  ConfigScope scope([](Config& config) { config.races = false; });
  EXPECT_EQ("", findings(refill_too_early<true>, 1, 64, 0, y_, x_));
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt

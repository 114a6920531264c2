// Faults in kernels of 9.0 that only the hooks find: unordered accesses, missing proxy fences, registers touched too early.
#include "hopper_kernels.h"

namespace culebra::simt {

enum class Store { fenced, not_fenced, fenced_after_the_barrier };

template <Store kStore>
__global__ void stored_operand(float* y) {
  CUL_DYNAMIC_SHARED(half_t, tile, 1024);
  for (int i = static_cast<int>(threadIdx.x); i < 1024; i += 128) tile[i] = from_float<half_t>(1.0f);
  if (kStore == Store::fenced) fence_async_proxy();
  __syncthreads();
  if (kStore == Store::fenced_after_the_barrier) fence_async_proxy();
  float d[4] = {};
  const uint32_t a[4] = {};
  wgmma_fence();
  wgmma<half_t, 8>(d, a, wgmma_descriptor(shared_address(tile)));
  wgmma_commit();
  wgmma_wait<0>();
  y[threadIdx.x] = d[0];
}

template <bool kFault>
__global__ void copy_over_a_store(float* y, const float* x) {
  CUL_SHARED(float, tile, [64]);
  CUL_SHARED(uint64_t, barrier, );
  const uint32_t full = shared_address(&barrier);
  tile[threadIdx.x] = 0;
  if (!kFault) fence_async_proxy();
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_bytes(full, 256);
    bulk_copy(shared_address(tile), x, 256, full);
  }
  mbarrier_wait(full, 0);
  y[threadIdx.x] = tile[threadIdx.x];
}

template <bool kFault>
__global__ void peer_written_without_a_barrier(float* y, const float* x) {
  CUL_SHARED(float, mine, [64]);
  mine[threadIdx.x] = x[threadIdx.x];
  if (!kFault) cluster_sync();
  const float4 v =
      load_cluster<float4>(cluster_address(shared_address(&mine[threadIdx.x / 4 * 4]), 1 - cluster_rank()));
  y[blockIdx.x * 64 + threadIdx.x] = v.y;
  cluster_sync();
}

namespace testing {
namespace {

class HopperCheckedFaults : public ::testing::Test {
 protected:
  template <Fault kFault, bool kRegisters = false>
  void expect_found(const char* message) {
    under_every_schedule([&] {
      const std::string text = matrices_.run(pipeline<half_t, kRegisters, kFault>, y_);
      EXPECT_NE(std::string::npos, text.find(message)) << "found: " << text;
    });
  }

  Matrices<half_t> matrices_{64, 32, 320};
  DeviceArray<float> y_{64 * 32};
  DeviceArray<float> x_{std::vector<float>(64, 3.0f)};
};

TEST_F(HopperCheckedFaults, MissingWaitForTheCopy) { expect_found<Fault::full_is_not_waited_for>("hopper_kernels.h:"); }
TEST_F(HopperCheckedFaults, MissingWaitForTheSlot) {
  expect_found<Fault::empty_is_not_waited_for>("at hopper_kernels.h:");
}
TEST_F(HopperCheckedFaults, WrongParity) { expect_found<Fault::wrong_parity>("hopper_kernels.h:"); }
TEST_F(HopperCheckedFaults, BarrierUsedWithoutOrder) { expect_found<Fault::no_sync_after_init>("mbarrier"); }
TEST_F(HopperCheckedFaults, SlotReleasedUnderTheProduct) {
  expect_found<Fault::slot_released_before_wait>("asynchronous");
}
TEST_F(HopperCheckedFaults, SumsReadUnderTheProduct) {
  expect_found<Fault::sums_read_before_wait>("read of the accumulators of wgmma.mma_async at hopper_kernels.h:");
}
TEST_F(HopperCheckedFaults, OperandsChangeUnderTheProduct) {
  expect_found<Fault::operands_changed_before_wait, true>(
      "write of the A registers of wgmma.mma_async at hopper_kernels.h:");
}
TEST_F(HopperCheckedFaults, SumsWrittenAfterTheFence) {
  expect_found<Fault::sums_written_after_fence>(
      "its registers were written after the last wgmma_fence, in store at hopper_kernels.h:");
}

TEST_F(HopperCheckedFaults, StoresThatTheTensorCoreDoesNotSee) {
  under_every_schedule([&] {
    EXPECT_EQ("", findings(stored_operand<Store::fenced>, 1, 128, 2048, y_));
    for (const auto kernel : {stored_operand<Store::not_fenced>, stored_operand<Store::fenced_after_the_barrier>})
      EXPECT_NE(std::string::npos,
                findings(kernel, 1, 128, 2048, y_).find("did not call fence_async_proxy between its write in"));
  });
}
TEST_F(HopperCheckedFaults, CopyOverAStore) {
  under_every_schedule([&] {
    EXPECT_EQ("", findings(copy_over_a_store<false>, 1, 64, 0, y_, x_));
    EXPECT_NE(std::string::npos,
              findings(copy_over_a_store<true>, 1, 64, 0, y_, x_).find("did not call fence_async_proxy"));
  });
}
TEST_F(HopperCheckedFaults, PeerReadWithoutABarrier) {
  const LaunchShape shape{.grid = 2, .block = 64, .cluster = 2};
  under_every_schedule([&] {
    EXPECT_EQ("", findings(peer_written_without_a_barrier<false>, shape, y_, x_));
    const std::string text = findings(peer_written_without_a_barrier<true>, shape, y_, x_);
    EXPECT_FALSE(text.empty());
  });
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt

// One fault per kernel of 9.0; each is caught with the message that names it, under every schedule. hopper_kernels_test.cc has the
// same pipeline without a fault, hopper_checked_faults_test.cc the faults that only the hooks find.
#include "hopper_kernels.h"

namespace culebra::simt {

template <bool kFault>
__global__ void arrival_too_many() {
  CUL_SHARED(uint64_t, barrier, );
  if (threadIdx.x == 0) {
    mbarrier_init(shared_address(&barrier), 64);
    mbarrier_init_fence();
  }
  __syncthreads();
  mbarrier_arrive(shared_address(&barrier));
  if (kFault && threadIdx.x < 2) {  // the phase waits for bytes that never come: one arrival more cannot belong to it
    mbarrier_arrive_expect_bytes(shared_address(&barrier), 16);
    for (int i = 0; i < 64; ++i) mbarrier_arrive(shared_address(&barrier));
  }
}

template <bool kFault>
__global__ void barrier_never_initialised() {
  CUL_SHARED(uint64_t, barrier, [2]);
  if (threadIdx.x == 0) {
    mbarrier_init(shared_address(&barrier[0]), 1);
    mbarrier_arrive(shared_address(&barrier[kFault ? 1 : 0]));
  }
}

template <bool kFault>
__global__ void copy_past_the_tile(const int* x) {
  CUL_DYNAMIC_SHARED(int, tile, 128);  // 1024 bytes
  CUL_SHARED(uint64_t, barrier, );
  const uint32_t full = shared_address(&barrier);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
    mbarrier_arrive_expect_bytes(full, 1024);
    bulk_copy_stream(shared_address(tile) + (kFault ? 16 : 0), x, 1024, full);
  }
  __syncthreads();
  mbarrier_wait(full, 0);
}

template <bool kFault>
__global__ void copy_past_global(const int* x) {
  CUL_DYNAMIC_SHARED(int, tile, 128);
  CUL_SHARED(uint64_t, barrier, );
  const uint32_t full = shared_address(&barrier);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
    mbarrier_arrive_expect_bytes(full, 1024);
    bulk_copy(shared_address(tile), x + (kFault ? 4 : 0), 1024, full);
  }
  __syncthreads();
  mbarrier_wait(full, 0);
}

template <bool kFault>
__global__ void copy_nobody_waits_for(const int* x) {
  CUL_DYNAMIC_SHARED(int, tile, 128);
  CUL_SHARED(uint64_t, barrier, );
  const uint32_t full = shared_address(&barrier);
  if (threadIdx.x != 0) return;
  mbarrier_init(full, 1);
  mbarrier_init_fence();
  mbarrier_arrive_expect_bytes(full, 1024);
  bulk_copy(shared_address(tile), x, 1024, full);
  if (!kFault) mbarrier_wait(full, 0);
}

template <bool kFault>
__global__ void two_accumulators_overlap() {
  CUL_DYNAMIC_SHARED(char, tile, 1024);
  for (int i = static_cast<int>(threadIdx.x); i < 2048; i += 128) tile[i] = 0;
  fence_async_proxy();
  __syncthreads();
  const uint64_t operand = wgmma_descriptor(shared_address(tile));
  float d[6] = {};
  const uint32_t a[4] = {};
  wgmma_fence();
  wgmma<half_t, 8>(*reinterpret_cast<float (*)[4]>(d), a, operand);
  if (kFault) wgmma<half_t, 8>(*reinterpret_cast<float (*)[4]>(d + 2), a, operand);
  wgmma_commit();
  wgmma_wait<0>();
}

template <bool kFault>
__global__ void warps_disagree() {
  CUL_DYNAMIC_SHARED(char, tile, 1024);
  for (int i = static_cast<int>(threadIdx.x); i < 2048; i += 128) tile[i] = 0;
  fence_async_proxy();
  __syncthreads();
  const uint64_t operand = wgmma_descriptor(shared_address(tile));
  float d[4] = {};
  const uint32_t a[4] = {};
  wgmma_fence();
  wgmma<half_t, 8>(d, a, wgmma_advance(operand, kFault && threadIdx.x >= 96 ? 32 : 0));
  wgmma_commit();
  wgmma_wait<0>();
}

// Without the second cluster_sync, block 0 may exit before block 1 has read it.
template <bool kFault>
__global__ void peer_exits(float* y, const float* x) {
  CUL_SHARED(float, mine, [64]);
  mine[threadIdx.x] = x[threadIdx.x];
  cluster_sync();
  if (blockIdx.x == 1 && threadIdx.x < 16) {
    const float4 v = load_cluster<float4>(cluster_address(shared_address(&mine[4 * threadIdx.x]), 0));
    y[threadIdx.x] = v.x + v.w;
  }
  if (!kFault) cluster_sync();
}

template <bool kFault>
__global__ void block_outside_the_cluster(float* y) {
  CUL_SHARED(float, mine, [64]);
  mine[threadIdx.x] = 1;
  cluster_sync();
  const float4 v = load_cluster<float4>(cluster_address(shared_address(mine), kFault ? 2 : 1));
  if (threadIdx.x == 0) y[blockIdx.x] = v.x;
  cluster_sync();
}

template <bool kFault>
__global__ void cluster_barrier_that_some_never_reach() {
  if (!kFault || blockIdx.x == 0 || threadIdx.x >= 32) cluster_arrive();
  if (!kFault || blockIdx.x == 0 || threadIdx.x >= 32) cluster_wait();
  __syncthreads();
  if (kFault && blockIdx.x == 1) named_barrier_sync(1, 128);
}

template <bool kFault>
__global__ void cluster_arrival_twice() {
  cluster_arrive();
  if (kFault) cluster_arrive();
  cluster_wait();
}

namespace testing {
namespace {

class HopperFaults : public ::testing::Test {
 protected:
  template <Fault kFault, bool kRegisters = false>
  std::string pipeline_findings() {
    return matrices_.run(pipeline<half_t, kRegisters, kFault>, y_);
  }

  Matrices<half_t> matrices_{64, 32, 320};
  DeviceArray<float> y_{64 * 32};
  DeviceArray<int> x_{std::vector<int>(256, 3)};
  DeviceArray<float> z_{std::vector<float>(64, 3.0f)};
};

#define EXPECT_FOUND(message, ...)                                         \
  under_every_schedule([&] {                                               \
    const std::string text = __VA_ARGS__;                                  \
    EXPECT_NE(std::string::npos, text.find(message)) << "found: " << text; \
  })
#define EXPECT_CAUGHT(kernel, shape, message, ...)                                                         \
  under_every_schedule([&] { EXPECT_EQ("", findings(kernel<false>, shape __VA_OPT__(, ) __VA_ARGS__)); }); \
  EXPECT_FOUND(message, findings(kernel<true>, shape __VA_OPT__(, ) __VA_ARGS__))

TEST_F(HopperFaults, MissingWaitForTheCopy) {
  under_every_schedule([&] {
    const std::string text = pipeline_findings<Fault::full_is_not_waited_for>();
    EXPECT_TRUE(!text.empty() || !matrices_.difference(y_.values()).empty());
  });
}
TEST_F(HopperFaults, WrongParity) {
  under_every_schedule([&] {
    const std::string text = pipeline_findings<Fault::wrong_parity>();
    EXPECT_TRUE(!text.empty() || !matrices_.difference(y_.values()).empty());
  });
}
TEST_F(HopperFaults, TooManyBytesAnnounced) {
  EXPECT_FOUND("lacks 0 of 1 arrivals and 16 bytes in its phase 0",
               pipeline_findings<Fault::too_many_bytes_announced>());
}
TEST_F(HopperFaults, TooFewBytesAnnounced) {
  under_every_schedule([&] {  // either the phase is complete too early, or it has too many bytes and never completes
    const std::string text = pipeline_findings<Fault::too_few_bytes_announced>();
    EXPECT_TRUE(text.find("too few were announced") != std::string::npos ||
                text.find("lacks 0 of 1 arrivals and -8192 bytes") != std::string::npos)
        << text;
  });
}
TEST_F(HopperFaults, TooFewArrivals) {
  EXPECT_FOUND("lacks 1 of 2 arrivals and 0 bytes in its phase 0", pipeline_findings<Fault::wrong_barrier_count>());
}
TEST_F(HopperFaults, CopyEngineDoesNotSeeTheBarrier) {
  EXPECT_FOUND("mbarrier_init_fence is missing after mbarrier.init at hopper_kernels.h:",
               pipeline_findings<Fault::no_init_fence>());
}
TEST_F(HopperFaults, NoFenceBeforeTheProduct) {
  EXPECT_FOUND("no wgmma_fence since the last wgmma_wait", pipeline_findings<Fault::no_wgmma_fence>());
}
TEST_F(HopperFaults, OperandsChangeUnderTheProduct) {
  EXPECT_FOUND("A registers", pipeline_findings<Fault::operands_changed_before_wait, true>());
}
TEST_F(HopperFaults, ProductNeverWaitedFor) {
  EXPECT_FOUND("the warp ends without waiting for this product", pipeline_findings<Fault::never_waited_for>());
}
TEST_F(HopperFaults, ProductNeverCommitted) {
  EXPECT_FOUND("the warp ends without committing this product", pipeline_findings<Fault::never_committed>());
}
TEST_F(HopperFaults, WarpOfTheGroupAbsent) {
  // 32 arrivals too few release the slot: the pipeline stops before the warpgroup's end is seen, unless one round is all there is.
  const Matrices<half_t> one_step(64, 32, 64);
  EXPECT_FOUND("only 3 of the warpgroup's four warps issue this",
               one_step.run(pipeline<half_t, false, Fault::one_warp_absent>, y_));
}
TEST_F(HopperFaults, UnalignedTile) {
  EXPECT_FOUND("is not aligned to 1024 bytes", pipeline_findings<Fault::unaligned_tile>());
}
TEST_F(HopperFaults, TileOutsideShared) {
  EXPECT_FOUND("they start 21504 bytes into dynamic shared memory, which has 24576",
               pipeline_findings<Fault::tile_outside_shared>());
}

TEST_F(HopperFaults, ArrivalTooMany) {
  EXPECT_CAUGHT(arrival_too_many, (LaunchShape{1, 64}), "more threads arrive than the 64");
}
TEST_F(HopperFaults, BarrierNeverInitialised) {
  EXPECT_CAUGHT(barrier_never_initialised, (LaunchShape{1, 64}), "no mbarrier was initialised at shared address");
}
TEST_F(HopperFaults, CopyPastTheTile) {
  EXPECT_CAUGHT(copy_past_the_tile, (LaunchShape{1, 64, 1024}), "they start 16 bytes into dynamic shared memory", x_);
}
TEST_F(HopperFaults, CopyPastGlobal) {
  EXPECT_CAUGHT(copy_past_global, (LaunchShape{1, 64, 1024}), "is outside every device allocation", x_);
}
TEST_F(HopperFaults, CopyNobodyWaitsFor) {
  EXPECT_CAUGHT(copy_nobody_waits_for, (LaunchShape{1, 64, 1024}), "nobody waits for its mbarrier", x_);
}
TEST_F(HopperFaults, AccumulatorsOverlap) {
  EXPECT_CAUGHT(two_accumulators_overlap, (LaunchShape{1, 128, 2048}),
                "its accumulators overlap those of wgmma.mma_async at");
}
TEST_F(HopperFaults, WarpsDisagree) {
  EXPECT_CAUGHT(warps_disagree, (LaunchShape{1, 128, 2048}), "with other operands instead");
}
TEST_F(HopperFaults, NoWholeWarpgroup) {
  EXPECT_NE(std::string::npos, findings(warps_disagree<false>, 1, 96, 2048).find("belongs to no whole warpgroup"));
}

TEST_F(HopperFaults, PeerExits) {
  const LaunchShape shape{.grid = 2, .block = 64, .cluster = 2};
  under_every_schedule([&] { EXPECT_EQ("", findings(peer_exits<false>, shape, y_, z_)); });
  if (!hooks_linked()) return;
  EXPECT_FOUND("exit", findings(peer_exits<true>, shape, y_, z_));
}
TEST_F(HopperFaults, BlockOutsideTheCluster) {
  EXPECT_CAUGHT(block_outside_the_cluster, (LaunchShape{.grid = 2, .block = 64, .cluster = 2}),
                "block 2 of a cluster of 2", y_);
}
TEST_F(HopperFaults, ClusterBarrierThatSomeNeverReach) {
  EXPECT_CAUGHT(cluster_barrier_that_some_never_reach, (LaunchShape{.grid = 2, .block = 64, .cluster = 2}),
                "wait for the other threads of the cluster in barrier.cluster.wait at hopper_faults_test.cc:");
}
TEST_F(HopperFaults, ClusterArrivalTwice) {
  EXPECT_CAUGHT(cluster_arrival_twice, (LaunchShape{.grid = 2, .block = 64, .cluster = 2}), "arrives a second time");
}
TEST_F(HopperFaults, ClusterThatNoDeviceTakes) {
  const auto refused = [&](dim3 grid, dim3 cluster) {
    return findings(cluster_arrival_twice<false>, LaunchShape{.grid = grid, .block = 64, .cluster = cluster});
  };
  EXPECT_NE(std::string::npos, refused(3, 2).find("invalid launch"));
  EXPECT_NE(std::string::npos, refused(16, 16).find("cluster (16, 1, 1)"));
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt

// Grids on several OS threads at once, as streams of several devices run them: each has its own simulation, all share the registry.
#include <atomic>
#include <thread>

#include "device/atomic.h"
#include "device/barrier.h"
#include "device/warp.h"
#include "harness.h"

namespace culebra::simt {

__global__ void sum_into(int* total, const int* x, int n) {
  CUL_SHARED(int, sums, [4]);
  int sum = 0;
  for (int i = threadIdx.x; i < n; i += 128) sum += x[i];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(total, sums[0] + sums[1] + sums[2] + sums[3]);
}

__global__ void fail_at_once(int* y) {
  named_barrier_sync(1, 33);
  *y = 0;
}

namespace testing {
namespace {

TEST(Concurrent, GridsOnSeveralThreadsShareOneTotal) {
  constexpr int kThreads = 4, kRounds = 30;
  std::vector<int> x(1000);
  int sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] = static_cast<int>(i % 7);
  DeviceArray<int> total(std::vector<int>{0}), dx(x);
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        DeviceArray<int> y(1);  // the registry changes under the others' feet
        if (findings(sum_into, 2, 128, 0, total, dx, static_cast<int>(x.size())) != "") ++failures;
        if (findings(fail_at_once, 1, 32, 0, y).find("33 threads") == std::string::npos) ++failures;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(0, failures);
  EXPECT_EQ(2 * kThreads * kRounds * sum, total[0]);
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt

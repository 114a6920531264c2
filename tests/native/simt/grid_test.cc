// The barrier of a whole grid: under every schedule, round after round, and what happens where it is missing or cannot work.
#include "device/grid.h"

#include "harness.h"

namespace culebra::simt {

// Each round every block adds up what all blocks wrote in the round before.
__global__ void exchange(int* values, int rounds) {
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (thread == 1) values[block] = block + 1;
  for (int round = 0; round < rounds; ++round) {
    grid_wait(grid_arrive());
    int sum = 0;
    for (int b = 0; b < blocks; ++b) sum += values[round % 2 * blocks + b];
    if (thread == 1) values[(round + 1) % 2 * blocks + block] = sum;
  }
}

__global__ void read_neighbour(int* values, bool wait) {
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  values[block] = block;
  if (wait) grid_wait(grid_arrive());
  values[blocks + block] = values[(block + 1) % blocks];
}

namespace testing {
namespace {

TEST(Grid, BlocksExchangeRoundAfterRound) {
  under_every_schedule([] {
    DeviceArray<int> values(8);
    EXPECT_EQ("", findings(exchange, 4, 64, 0, values, 3));
    for (int b = 0; b < 4; ++b) EXPECT_EQ(10 * 4 * 4, values[4 + static_cast<size_t>(b)]);  // 10, 40, 160
    EXPECT_EQ("", findings(exchange, 4, 64, 0, values, 1)) << "the next grid's barrier begins anew";
  });
}

TEST(Grid, MoreBlocksThanRunAtOnceAreRefused) {
  DeviceArray<int> values(200);
  EXPECT_NE(std::string::npos, findings(read_neighbour, 100, 1, 0, values, true).find("a barrier of 100 blocks, of which only 64 run at once"));
}

TEST(Grid, WithoutItReadsAreNotOrdered) {
  DeviceArray<int> values(std::vector<int>(8, 0));
  EXPECT_EQ("", findings(read_neighbour, 4, 1, 0, values, true));
  // Without the hooks plain accesses are not seen.
  EXPECT_EQ(hooks_linked(), findings(read_neighbour, 4, 1, 0, values, false).find("race on global memory") != std::string::npos);
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt

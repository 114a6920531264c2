#include "backends/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <new>
#include <numeric>
#include <stdexcept>

#include "backends/fault.h"

namespace culebra {
namespace {

TEST(ThreadPool, coversEveryIndexOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (int64_t n : {0, 1, 2, 7, 64, 1001}) {
      for (int64_t grain : {1, 3, 100}) {
        std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
        });
        for (auto& h : hits) ASSERT_EQ(h, 1) << threads << " threads, n " << n << ", grain " << grain;
      }
    }
  }
}

TEST(ThreadPool, rethrowsAndStaysUsable) {
  ThreadPool pool(2);
  EXPECT_THROW(pool.parallel_for(100, 1, [](int64_t b, int64_t) { if (b > 10) throw std::runtime_error("piece"); }),
               std::runtime_error);
  std::atomic<int64_t> sum{0};
  pool.parallel_for(100, 1, [&](int64_t b, int64_t e) { for (; b < e; ++b) sum += b; });
  EXPECT_EQ(sum, 4950);
}

// A thread that still runs when it is destroyed would end the process.
TEST(ThreadPool, aThreadThatCannotBeStartedIsAnException) {
  for (int calls : {0, 1, 6}) {
    fault::countdown = calls;
    EXPECT_THROW(ThreadPool(8), std::bad_alloc) << calls;
    fault::countdown = -1;
  }
}

TEST(ThreadPool, aLoopInsideALoopRunsOnItsThread) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  pool.parallel_for(8, 1, [&](int64_t b, int64_t e) {
    for (; b < e; ++b) pool.parallel_for(10, 1, [&](int64_t x, int64_t y) { sum += y - x; });
  });
  EXPECT_EQ(sum, 80);
}

TEST(ThreadPool, twoCallersTakeTurns) {
  ThreadPool pool(2);
  std::atomic<int64_t> sum{0};
  auto caller = [&] {
    for (int i = 0; i < 200; ++i) pool.parallel_for(16, 1, [&](int64_t b, int64_t e) { sum += e - b; });
  };
  std::thread other(caller);
  caller();
  other.join();
  EXPECT_EQ(sum, 2 * 200 * 16);
}

}  // namespace
}  // namespace culebra

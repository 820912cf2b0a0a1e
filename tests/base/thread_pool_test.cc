#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>

#include "base/error.h"

namespace contexture {
namespace {

TEST(ThreadPool, RunsEveryPartOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const size_t parts : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(parts);
      std::vector<std::atomic<int>> busy(static_cast<size_t>(threads));
      pool.run(parts, [&](size_t part, int thread) {
        EXPECT_EQ(busy[static_cast<size_t>(thread)].fetch_add(1), 0) << "two parts at once on one thread's scratch";
        ++runs[part];
        busy[static_cast<size_t>(thread)].fetch_sub(1);
      });
      for (const auto& r : runs) EXPECT_EQ(r, 1);
    }
  }
}

TEST(ThreadPool, WritesAreSeenAfterTheLoopAndInTheNext) {
  ThreadPool pool(4);
  std::vector<size_t> values(64, 0);  // not atomic: the loops order them
  for (size_t round = 1; round <= 500; ++round) {
    pool.run(values.size(), [&](size_t part, int) { values[(part * 7 + round) % values.size()] += 1; });
    for (const size_t v : values) ASSERT_EQ(v, round);
  }
}

TEST(ThreadPool, WakesAfterSleeping) {
  ThreadPool pool(3);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long enough for the workers to park
    std::atomic<int> runs{0};
    pool.run(100, [&](size_t, int) { ++runs; });
    EXPECT_EQ(runs, 100);
  }
}

#if !defined(CONTEXTURE_SANITIZES_ADDRESSES) && !defined(CONTEXTURE_SANITIZES_THREADS)
TEST(ThreadPool, MoreThreadsThanTheMachineGivesIsAnError) {
  // In a process of its own, whose address space has no room for the stacks of 4,000 threads.
  const auto start_too_many = [] {
    rlimit limit;
    limit.rlim_cur = limit.rlim_max = size_t{1} << 30;
    setrlimit(RLIMIT_AS, &limit);
    try {
      ThreadPool pool(4000);
    } catch (const Error&) {
      std::_Exit(7);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(start_too_many(), testing::ExitedWithCode(7), "");
}
#endif

TEST(PhysicalCores, IsBetweenOneAndTheHardwaresThreads) {
  EXPECT_GE(physical_cores(), 1);
  EXPECT_LE(physical_cores(), static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
}

}  // namespace
}  // namespace contexture

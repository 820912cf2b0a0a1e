#include "kernels/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/machine.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Reads every byte of whole 4 KB pages, from four places side by side: a core has more reads in flight so than from
/// one. The sum keeps the compiler from leaving the reads out.
uint64_t sum_words(const uint64_t* HWY_RESTRICT from, size_t words) {
  const hn::ScalableTag<uint64_t> d;
  const size_t lanes = hn::Lanes(d), quarter = words / 4;
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (size_t i = 0; i < quarter; i += 32) {  // 256 bytes of each
    for (size_t j = i; j < i + 32; j += lanes) a = hn::Add(a, hn::LoadU(d, from + j));
    for (size_t j = i; j < i + 32; j += lanes) b = hn::Add(b, hn::LoadU(d, from + quarter + j));
    for (size_t j = i; j < i + 32; j += lanes) c = hn::Add(c, hn::LoadU(d, from + 2 * quarter + j));
    for (size_t j = i; j < i + 32; j += lanes) e = hn::Add(e, hn::LoadU(d, from + 3 * quarter + j));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

/// `rounds` times 16 independent chains of vector multiply-adds; returns how many operations that were.
double run_multiply_adds(size_t rounds, float* result) {
  const hn::ScalableTag<float> d;
  constexpr size_t kChains = 16;  // enough for a latency of 4 to 5 cycles and two units
  const auto factor = hn::Set(d, 0.999f);
  // Each begins with a number of its own: chains of equal numbers would be computed once.
  const auto begin = [&](int i) HWY_ATTR { return hn::Set(d, 1.f + static_cast<float>(i)); };
  auto sums0 = begin(0), sums1 = begin(1), sums2 = begin(2), sums3 = begin(3), sums4 = begin(4), sums5 = begin(5),
       sums6 = begin(6), sums7 = begin(7), sums8 = begin(8), sums9 = begin(9), sums10 = begin(10), sums11 = begin(11),
       sums12 = begin(12), sums13 = begin(13), sums14 = begin(14), sums15 = begin(15);
  for (size_t i = 0; i < rounds; ++i) {
    for (auto* sum : {&sums0, &sums1, &sums2, &sums3, &sums4, &sums5, &sums6, &sums7, &sums8, &sums9, &sums10, &sums11,
                      &sums12, &sums13, &sums14, &sums15}) {
      *sum = hn::MulAdd(*sum, factor, factor);
    }
  }
  auto total = hn::Zero(d);
  for (auto* sum : {&sums0, &sums1, &sums2, &sums3, &sums4, &sums5, &sums6, &sums7, &sums8, &sums9, &sums10, &sums11,
                    &sums12, &sums13, &sums14, &sums15}) {
    total = hn::Add(total, *sum);
  }
  *result = hn::GetLane(total);
  return static_cast<double>(rounds * kChains * hn::Lanes(d) * 2);
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(sum_words);
HWY_EXPORT(run_multiply_adds);

double read_bandwidth(std::span<const std::byte> memory, ThreadPool& pool) {
  constexpr size_t part = size_t{1} << 20;
  constexpr int passes = 3;
  const size_t parts = memory.size() / part;
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(parts, [&](size_t i, int) {
      const auto* words = reinterpret_cast<const uint64_t*>(memory.data() + i * part);
      sink += HWY_DYNAMIC_DISPATCH(sum_words)(words, part / sizeof(uint64_t));
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(parts * part) / seconds);
  }
  return best;
}

double multiply_add_peak(ThreadPool& pool) {
  constexpr size_t rounds = 200000;
  constexpr int passes = 5;
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    std::vector<double> operations(static_cast<size_t>(pool.threads()));
    std::vector<float> sink(operations.size());
    const auto start = std::chrono::steady_clock::now();
    pool.run(operations.size(),
             [&](size_t i, int) { operations[i] = HWY_DYNAMIC_DISPATCH(run_multiply_adds)(rounds, &sink[i]); });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, std::accumulate(operations.begin(), operations.end(), 0.0) / seconds);
  }
  return best;
}

}  // namespace contexture
#endif

#include "kernels/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bandwidth.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// (after foreach_target.h)
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace contexture {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Reads every byte of whole 4 KB pages; the sum keeps the compiler from leaving the reads out.
uint64_t sum_words(const uint64_t* HWY_RESTRICT from, size_t words) {
  const hn::ScalableTag<uint64_t> d;
  const size_t lanes = hn::Lanes(d);
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (size_t i = 0; i < words; i += 4 * lanes) {
    hwy::Prefetch(from + i + 512);
    a = hn::Add(a, hn::LoadU(d, from + i));
    b = hn::Add(b, hn::LoadU(d, from + i + lanes));
    c = hn::Add(c, hn::LoadU(d, from + i + 2 * lanes));
    e = hn::Add(e, hn::LoadU(d, from + i + 3 * lanes));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

}  // namespace HWY_NAMESPACE
}  // namespace contexture
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace contexture {

HWY_EXPORT(sum_words);

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

}  // namespace contexture
#endif

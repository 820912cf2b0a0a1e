#include "kernels/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

namespace contexture {
namespace {

/// Reads every byte; the sum keeps the compiler from leaving the reads out.
uint64_t sum_words(std::span<const std::byte> memory) {
  uint64_t sums[16] = {};
  for (size_t at = 0; at + sizeof(sums) <= memory.size(); at += sizeof(sums)) {
    uint64_t words[16];
    std::memcpy(words, memory.data() + at, sizeof(words));
    for (int i = 0; i < 16; ++i) sums[i] += words[i];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace

double read_bandwidth(std::span<const std::byte> memory, ThreadPool& pool) {
  constexpr size_t part = size_t{1} << 20;
  constexpr int passes = 3;
  const size_t parts = memory.size() / part;
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(parts, [&](size_t i, int) { sink += sum_words(memory.subspan(i * part, part)); });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(parts * part) / seconds);
  }
  return best;
}

}  // namespace contexture

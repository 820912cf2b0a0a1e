#pragma once

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace contexture {

/// Small quants, and scales that are numbers in every format: speed does not depend on the values.
inline std::vector<std::byte> some_bytes(size_t count) {
  return std::vector<std::byte>(count, std::byte{0x11});
}

/// What one iteration reads (bytes_per_second), to hold against the machine's read bandwidth, and the additions and
/// multiplications it does (operations a second), to hold against its peak.
inline void set_rates(benchmark::State& state, size_t bytes, size_t operations) {
  const auto runs = static_cast<size_t>(state.iterations());
  state.SetBytesProcessed(static_cast<int64_t>(bytes * runs));
  state.counters["operations"] =
      benchmark::Counter(static_cast<double>(operations) * static_cast<double>(runs), benchmark::Counter::kIsRate);
}

}  // namespace contexture

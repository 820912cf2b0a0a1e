#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace contexture {

/// Bytes of a text, from `begin` to before `end`.
struct ByteRange {
  size_t begin, end;
  bool operator==(const ByteRange&) const = default;
};

// Ranges that are ascending and apart.

/// The first one that ends after `at`.
inline std::span<const ByteRange>::iterator range_after(std::span<const ByteRange> ranges, size_t at) {
  return std::upper_bound(ranges.begin(), ranges.end(), at, [](size_t place, ByteRange r) { return place < r.end; });
}

/// Whether one has a byte from `begin` to before `end`.
inline bool touches(std::span<const ByteRange> ranges, size_t begin, size_t end) {
  const auto range = range_after(ranges, begin);
  return range != ranges.end() && range->begin < end;
}

/// What they have from `begin` to before `end`, counted from `begin`.
inline std::vector<ByteRange> part_of(std::span<const ByteRange> ranges, size_t begin, size_t end) {
  std::vector<ByteRange> part;
  for (auto range = range_after(ranges, begin); range != ranges.end() && range->begin < end; ++range) {
    part.push_back({std::max(range->begin, begin) - begin, std::min(range->end, end) - begin});
  }
  return part;
}

}  // namespace contexture

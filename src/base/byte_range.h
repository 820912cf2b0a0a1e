#pragma once

#include <cstddef>

namespace contexture {

/// Bytes of a text, from `begin` to before `end`.
struct ByteRange {
  size_t begin, end;
  bool operator==(const ByteRange&) const = default;
};

}  // namespace contexture

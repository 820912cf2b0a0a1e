#pragma once

#include <cstddef>

namespace contexture {

/// Watches what operator new hands out while this lives (this test program replaces it, in allocations.cc). One at a
/// time.
class AllocationWatch {
 public:
  AllocationWatch();
  /// The most bytes that were held at once, beyond what was held at the beginning.
  size_t peak() const;

 private:
  size_t before_;
};

}  // namespace contexture

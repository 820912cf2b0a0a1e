#pragma once

#include <cstddef>

namespace contexture {

/// Watches what operator new hands out while this lives (this test program replaces it, in allocations.cc). One at a
/// time. Under the thread sanitizer nothing can be watched: tests that ask for it skip themselves there.
class AllocationWatch {
 public:
  AllocationWatch();
  /// The most bytes that were held at once, beyond what was held at the beginning.
  size_t peak() const;

 private:
  size_t before_;
};

#if defined(CONTEXTURE_SANITIZES_THREADS)
inline constexpr bool kWatchesAllocations = false;
#else
inline constexpr bool kWatchesAllocations = true;
#endif

}  // namespace contexture

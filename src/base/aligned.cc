#include "base/aligned.h"

#include <sys/mman.h>

#include <cstdint>

namespace contexture {

void advise_large_pages(void* data, size_t bytes) {
  constexpr size_t kSmallPage = 4096, kLargePage = size_t{2} << 20;
  if (bytes < 2 * kLargePage) return;  // may hold none
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kSmallPage - 1) / kSmallPage * kSmallPage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kSmallPage * kSmallPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace contexture

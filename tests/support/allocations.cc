#include "support/allocations.h"

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<size_t> held = 0;
std::atomic<size_t> most = 0;

}  // namespace

#if !defined(CONTEXTURE_SANITIZES_THREADS)  // which brings an operator new of its own, linked before this file's

void* operator new(size_t size, std::align_val_t alignment) {
  void* memory = nullptr;
  if (posix_memalign(&memory, static_cast<size_t>(alignment), size) != 0) throw std::bad_alloc();
  const size_t now = held += malloc_usable_size(memory);
  if (now > most) most = now;
  return memory;
}

void* operator new(size_t size) {
  return operator new(size, std::align_val_t(alignof(std::max_align_t)));
}

// std::stable_sort asks for its memory so.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void operator delete(void* memory) noexcept {
  if (memory) held -= malloc_usable_size(memory);
  std::free(memory);
}

void operator delete(void* memory, size_t) noexcept {
  operator delete(memory);
}

void operator delete(void* memory, std::align_val_t) noexcept {
  operator delete(memory);
}

void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  operator delete(memory);
}

#endif

namespace contexture {

AllocationWatch::AllocationWatch() : before_(held) {
  most = before_;
}

size_t AllocationWatch::peak() const {
  return most - before_;
}

}  // namespace contexture

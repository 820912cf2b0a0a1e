#include "files/allocations.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<size_t> held = 0;
std::atomic<size_t> most = 0;

}  // namespace

void* operator new(size_t size) {
  void* memory = std::malloc(size);
  if (!memory) throw std::bad_alloc();
  const size_t now = held += malloc_usable_size(memory);
  if (now > most) most = now;
  return memory;
}

void operator delete(void* memory) noexcept {
  if (memory) held -= malloc_usable_size(memory);
  std::free(memory);
}

void operator delete(void* memory, size_t) noexcept {
  operator delete(memory);
}

namespace contexture {

AllocationWatch::AllocationWatch() : before_(held) {
  most = before_;
}

size_t AllocationWatch::peak() const {
  return most - before_;
}

}  // namespace contexture

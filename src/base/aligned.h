#pragma once

#include <cstddef>
#include <new>
#include <span>
#include <utility>

namespace contexture {

/// Asks for pages of 2 MB where memory is large: K and V are read in runs of a few kilobytes, and with small pages each
/// run begins with a walk through the page tables. Without the system's consent nothing happens.
void advise_large_pages(void* data, size_t bytes);

/// Memory of a fixed size, aligned for any vector unit, not initialised (so that untouched pages cost nothing) and
/// never grown: what is planned is what is allocated.
template <class T>
class AlignedArray {
 public:
  static constexpr size_t alignment = 128;

  AlignedArray() = default;
  explicit AlignedArray(size_t count) : size_(count) {
    if (count == 0) return;
    data_ = static_cast<T*>(::operator new(bytes_for(count), std::align_val_t(alignment)));
    advise_large_pages(data_, bytes_for(count));
  }
  AlignedArray(AlignedArray&& other) noexcept { *this = std::move(other); }
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedArray() { ::operator delete(data_, std::align_val_t(alignment)); }

  /// Bytes that an array of `count` takes: rounded up to the alignment.
  static constexpr size_t bytes_for(size_t count) {
    return (count * sizeof(T) + alignment - 1) / alignment * alignment;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  std::span<T> span() { return {data_, size_}; }
  std::span<const T> span() const { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace contexture

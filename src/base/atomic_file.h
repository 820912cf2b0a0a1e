#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace contexture {

/// A file being written that gets its name when it is whole and on the disk. Until then it is PATH.partial-PID, which
/// does not outlive a failure: what was there before stays. Everything here throws Error.
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  /// Zeros up to the next multiple of `alignment`.
  void pad(size_t alignment);
  void publish();

 private:
  std::string path_;
  std::string partial_;
  int fd_ = -1;
  size_t position_ = 0;
  bool published_ = false;
};

}  // namespace contexture

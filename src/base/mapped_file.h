#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace contexture {

/// A file mapped read-only for as long as this lives. Movable, not copyable.
class MappedFile {
 public:
  /// Throws Error where the file is missing, unreadable, not a regular file, or a Git LFS pointer, which stands for a
  /// file that was not fetched. An empty file maps to an empty span.
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  /// Those of these bytes that are this map's need not stay in memory. They are still there: read again, they come from
  /// the file.
  void give_back(std::span<const std::byte> bytes) const;

 private:
  void unmap();

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  uint64_t device_ = 0, inode_ = 0;
};

/// Whether this process has the file mapped, under whatever name.
bool is_mapped(const std::string& path);

/// Whether a file is what Git leaves in place of one that was not fetched.
bool is_git_lfs_pointer(const std::string& path);

}  // namespace contexture

#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

struct zip;
struct zip_source;

namespace contexture {

/// A zip file in memory whose entries are stored as they are, not compressed: they are used in place. libzip reads the
/// directory; a size that it tells is held against the bytes that are there.
class ZipArchive {
 public:
  /// `bytes` must outlive this; `path` is for messages. Throws Error where this is no zip file.
  ZipArchive(std::span<const std::byte> bytes, const std::string& path);

  /// Names of all entries, in the directory's order.
  std::vector<std::string> names() const;
  bool has(const std::string& name) const;
  /// An entry's bytes in the file. Throws Error where there is none, or it is compressed, encrypted or cut off.
  std::span<const std::byte> find(const std::string& name) const;
  /// The same as a copy whose checksum was right. Throws Error too where it has more than `most` bytes.
  std::vector<char> read(const std::string& name, size_t most) const;

 private:
  struct Close {
    void operator()(zip* archive) const;
  };

  std::span<const std::byte> bytes_;
  std::string path_;
  std::unique_ptr<zip, Close> archive_;
  zip_source* source_ = nullptr;  // the archive's
};

}  // namespace contexture

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"

namespace contexture::jinja {

/// A text that knows which of its bytes are content: what came from outside (a message, a tool) and is not the
/// template's own.
class MarkedText {
 public:
  MarkedText() = default;
  explicit MarkedText(std::string bytes, bool is_content = false);

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  /// Ascending, not empty, and apart from each other.
  const std::vector<ByteRange>& content() const { return content_; }
  bool is_content(size_t at) const;

  void add(std::string_view bytes, bool is_content = false);
  void add(const MarkedText& other, size_t from = 0, size_t to = std::string::npos);
  void reserve(size_t size) { bytes_.reserve(size); }

 private:
  void mark(size_t begin, size_t end);

  std::string bytes_;
  std::vector<ByteRange> content_;
};

}  // namespace contexture::jinja

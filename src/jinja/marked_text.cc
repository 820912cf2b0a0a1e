#include "jinja/marked_text.h"

#include <algorithm>

namespace contexture::jinja {
MarkedText::MarkedText(std::string bytes, bool is_content) : bytes_(std::move(bytes)) {
  if (is_content) mark(0, bytes_.size());
}

bool MarkedText::is_content(size_t at) const {
  return touches(content_, at, at + 1);
}

void MarkedText::add(std::string_view bytes, bool is_content) {
  const size_t begin = bytes_.size();
  bytes_ += bytes;
  if (is_content) mark(begin, bytes_.size());
}

void MarkedText::add(const MarkedText& other, size_t from, size_t to) {
  to = std::min(to, other.size());
  const size_t begin = bytes_.size();
  bytes_.append(other.bytes_, from, to - from);
  for (const ByteRange& range : part_of(other.content_, from, to)) mark(begin + range.begin, begin + range.end);
}

void MarkedText::mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!content_.empty() && content_.back().end == begin) {
    content_.back().end = end;
  } else {
    content_.push_back({begin, end});
  }
}

}  // namespace contexture::jinja

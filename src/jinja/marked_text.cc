#include "jinja/marked_text.h"

#include <algorithm>

namespace contexture::jinja {
namespace {

/// The first range that ends after `at`.
std::vector<ByteRange>::const_iterator range_after(const std::vector<ByteRange>& ranges, size_t at) {
  return std::upper_bound(ranges.begin(), ranges.end(), at, [](size_t place, ByteRange r) { return place < r.end; });
}

}  // namespace

MarkedText::MarkedText(std::string bytes, bool is_content) : bytes_(std::move(bytes)) {
  if (is_content) mark(0, bytes_.size());
}

bool MarkedText::is_content(size_t at) const {
  const auto range = range_after(content_, at);
  return range != content_.end() && range->begin <= at;
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
  for (auto range = range_after(other.content_, from); range != other.content_.end() && range->begin < to; ++range) {
    mark(begin + std::max(range->begin, from) - from, begin + std::min(range->end, to) - from);
  }
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

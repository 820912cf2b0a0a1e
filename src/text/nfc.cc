#include "text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "text/utf8.h"

namespace contexture {
namespace {

constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

auto combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

std::vector<utf8proc_int32_t> decomposed(std::string_view text) {
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(text.size());
  while (!text.empty()) {
    utf8proc_int32_t code_point = 0, parts[8];
    const auto size = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                       static_cast<utf8proc_ssize_t>(text.size()), &code_point);
    const auto count =
        size < 0 ? size : utf8proc_decompose_char(code_point, parts, std::size(parts), kOptions, nullptr);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(std::size(parts))) {
      fail("the text cannot be normalized: {}", utf8proc_errmsg(std::min<utf8proc_ssize_t>(count, 0)));
    }
    code_points.insert(code_points.end(), parts, parts + count);
    text.remove_prefix(size);
  }
  return code_points;
}

/// Marks after a letter, by their class. (utf8proc_map would do it in a time that grows with the square of their
/// number, and texts come from strangers.)
void order_marks(std::vector<utf8proc_int32_t>& code_points) {
  const auto is_mark = [](utf8proc_int32_t code_point) { return combining_class(code_point) != 0; };
  for (auto begin = code_points.begin(); begin != code_points.end();) {
    begin = std::find_if(begin, code_points.end(), is_mark);
    const auto end = std::find_if_not(begin, code_points.end(), is_mark);
    std::stable_sort(begin, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

std::string nfc_of_valid(std::string_view text) {
  std::vector<utf8proc_int32_t> code_points = decomposed(text);
  order_marks(code_points);
  const auto count =
      utf8proc_normalize_utf32(code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), kOptions);
  if (count < 0) fail("the text cannot be normalized: {}", utf8proc_errmsg(count));
  code_points.resize(count);
  std::string composed;
  composed.reserve(text.size());
  for (const utf8proc_int32_t code_point : code_points) append_utf8(composed, static_cast<uint32_t>(code_point));
  return composed;
}

}  // namespace

std::string nfc(std::string_view text) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) {
    return std::string(text);
  }
  std::string composed;
  while (!text.empty()) {
    const size_t valid = valid_utf8_prefix(text);
    if (valid > 0) composed += nfc_of_valid(text.substr(0, valid));
    composed += text.substr(valid, 1);
    text.remove_prefix(std::min(valid + 1, text.size()));
  }
  return composed;
}

}  // namespace contexture

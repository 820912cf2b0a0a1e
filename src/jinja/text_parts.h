#pragma once

#include "jinja/value.h"

/// What filters and methods of texts share.
namespace contexture::jinja {

/// Python's splitlines().
std::vector<Value> split_lines(Heap& heap, const String& text, bool keep_ends);
/// Python's replace(); most < 0: all.
Value replaced(Heap& heap, const String& text, const String& from, const String& to, int64_t most);

enum class TextChange { upper, lower, capitalize, title, swapcase, casefold };
Value changed_text(Heap& heap, const String& text, TextChange change);

/// Python's islower and isupper: at least one letter of this case, and none of another.
bool has_case(Heap& heap, std::string_view text, bool (*is)(char32_t));

}  // namespace contexture::jinja

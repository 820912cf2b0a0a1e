#include "jinja/text_parts.h"

#include <algorithm>

#include "jinja/strings.h"

namespace contexture::jinja {
namespace {

bool ends_line(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

/// Where a capital sigma ends a word, its lower case is another.
bool is_final_sigma(std::string_view text, size_t at, bool after_cased) {
  const Character c = character_at(text, at);
  if (c.code != 0x3A3 || !after_cased) return false;
  const size_t next = at + c.size;
  return next == text.size() || !is_cased(character_at(text, next).code);
}

std::string changed_character(TextChange change, char32_t code, bool is_first, bool after_cased) {
  switch (change) {
    case TextChange::upper:
      return upper(code);
    case TextChange::lower:
      return lower(code);
    case TextChange::capitalize:
      return is_first ? title(code) : lower(code);
    case TextChange::title:
      return after_cased ? lower(code) : title(code);
    case TextChange::swapcase:
      return is_upper(code) ? lower(code) : is_lower(code) ? upper(code) : utf8_of(code);
    case TextChange::casefold:
      return casefold(code);
  }
  return {};
}

}  // namespace

std::vector<Value> split_lines(Heap& heap, const String& string, bool keep_ends) {
  const std::string& text = string.bytes();
  heap.spend(text.size());
  std::vector<Value> lines;
  size_t from = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    const size_t end = at;
    at += c.size;
    if (!c.is_valid || !ends_line(c.code)) continue;
    if (c.code == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(heap.part(string, from, keep_ends ? at : end));
    from = at;
  }
  if (from < text.size()) lines.push_back(heap.part(string, from));
  return lines;
}

Value replaced(Heap& heap, const String& string, const String& from, const String& to, int64_t most) {
  const std::string &text = string.bytes(), &what = from.bytes();
  heap.spend_search(text.size(), what.size());
  size_t left = most < 0 ? std::string::npos : static_cast<size_t>(most);
  Writer out(heap);
  size_t at = 0;
  for (; left > 0; --left) {
    if (what.empty()) {  // before every character, and at the end
      out.add(to);
      if (at == text.size()) break;
      const size_t size = character_at(text, at).size;
      out.add(string, at, at + size);
      at += size;
      continue;
    }
    const size_t next = text.find(what, at);
    if (next == text.npos) break;
    out.add(string, at, next);
    out.add(to);
    at = next + what.size();
  }
  out.add(string, at);
  return heap.string(out.text(), string.is_markup);
}

Value changed_text(Heap& heap, const String& string, TextChange change) {
  const std::string& text = string.bytes();
  Writer out(heap);
  bool after_cased = false;
  for (size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    if (!c.is_valid) {
      out.add(string, at, at + 1);
    } else if (change != TextChange::upper && change != TextChange::casefold && is_final_sigma(text, at, after_cased)) {
      out.add("\u03C2", string.is_content(at));
    } else {
      out.add(changed_character(change, c.code, at == 0, after_cased), string.is_content(at));
    }
    after_cased = c.is_valid && is_cased(c.code);
    at += c.size;
  }
  return heap.string(out.text(), string.is_markup);
}

bool has_case(Heap& heap, std::string_view text, bool (*is)(char32_t)) {
  heap.spend(text.size());
  bool has = false;
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size) {
    const Character c = character_at(text, at);
    if (!c.is_valid || !is_cased(c.code)) continue;
    if (!is(c.code)) return false;
    has = true;
  }
  return has;
}

}  // namespace contexture::jinja

#include "jinja/strings.h"

#include <fmt/format.h>

#include <cmath>

namespace contexture::jinja {

Character character_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  const size_t size = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (size == 1 || size == 0 || at + size > text.size()) return {first, 1};
  char32_t code = first & (0x7Fu >> size);
  for (size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return {first, 1};
    code = code << 6 | (byte(at + i) & 0x3F);
  }
  return {code, size};
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size) ++count;
  return count;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

namespace {

/// The last character of a text that is not empty.
Character last_character(std::string_view text) {
  for (size_t size = 4; size > 1; --size) {
    if (text.size() < size) continue;
    const Character c = character_at(text, text.size() - size);
    if (c.size == size) return c;
  }
  return character_at(text, text.size() - 1);
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || static_cast<unsigned char>(c) >= 0x80;
}
char to_upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
}
char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

}  // namespace

std::string_view strip(std::string_view text, Side side, const std::string_view* chars) {
  const auto goes = [&](std::string_view whole, size_t at, const Character& c) {
    if (!chars) return is_space(c.code);
    const std::string_view bytes = whole.substr(at, c.size);
    for (size_t i = 0; i < chars->size(); i += character_at(*chars, i).size) {
      if (chars->substr(i, character_at(*chars, i).size) == bytes) return true;
    }
    return false;
  };
  while (side != Side::right && !text.empty()) {
    const Character c = character_at(text, 0);
    if (!goes(text, 0, c)) break;
    text.remove_prefix(c.size);
  }
  while (side != Side::left && !text.empty()) {
    const Character c = last_character(text);
    if (!goes(text, text.size() - c.size, c)) break;
    text.remove_suffix(c.size);
  }
  return text;
}

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = to_upper(c);
  return out;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = to_lower(c);
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out = lower(text);
  if (!out.empty()) out[0] = to_upper(out[0]);
  return out;
}

std::string title(std::string_view text) {
  std::string out(text);
  bool in_word = false;
  for (char& c : out) {
    c = in_word ? to_lower(c) : to_upper(c);
    in_word = is_letter(c);
  }
  return out;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, size_t most) {
  std::string out;
  size_t at = 0;
  for (; most > 0; --most) {
    if (from.empty()) {  // before every character, and at the end
      out += to;
      if (at == text.size()) return out;
      const size_t size = character_at(text, at).size;
      out += text.substr(at, size);
      at += size;
      continue;
    }
    const size_t next = text.find(from, at);
    if (next == text.npos) break;
    out += text.substr(at, next - at);
    out += to;
    at = next + from.size();
  }
  out += text.substr(at);
  return out;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

}  // namespace contexture::jinja

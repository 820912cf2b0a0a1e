#include "jinja/strings.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace contexture::jinja {

Character character_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  const size_t size = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (size == 1) return {first, 1};
  if (size == 0 || at + size > text.size()) return {first, 1, /*is_valid=*/false};
  char32_t code = first & (0x7Fu >> size);
  for (size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return {first, 1, /*is_valid=*/false};
    code = code << 6 | (byte(at + i) & 0x3F);
  }
  return {code, size};
}

std::string utf8_of(char32_t code) {
  char bytes[4];
  return {bytes, static_cast<size_t>(utf8proc_encode_char(static_cast<utf8proc_int32_t>(code),
                                                          reinterpret_cast<utf8proc_uint8_t*>(bytes)))};
}

size_t count_characters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += character_at(text, at).size) ++count;
  return count;
}

size_t place_of_character(std::string_view text, size_t number) {
  size_t at = 0;
  for (; number > 0 && at < text.size(); --number) at += character_at(text, at).size;
  return at;
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

utf8proc_category_t category(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

/// Of these the upper case has more than one character.
struct Expansion {
  char32_t code;
  const char *upper, *title;
};
constexpr Expansion kExpansions[] = {
    {0xDF, "SS", "Ss"},   {0x149, "\u02BCN", "\u02BCN"}, {0x1F0, "J\u030C", "J\u030C"}, {0xFB00, "FF", "Ff"},
    {0xFB01, "FI", "Fi"}, {0xFB02, "FL", "Fl"},          {0xFB03, "FFI", "Ffi"},        {0xFB04, "FFL", "Ffl"},
    {0xFB05, "ST", "St"}, {0xFB06, "ST", "St"}};

const Expansion* expansion_of(char32_t code) {
  const auto* found =
      std::find_if(std::begin(kExpansions), std::end(kExpansions), [&](const Expansion& e) { return e.code == code; });
  return found == std::end(kExpansions) ? nullptr : found;
}

}  // namespace

std::string_view strip(std::string_view text, Side side, const std::string_view* chars) {
  const auto goes = [&](std::string_view whole, size_t at, const Character& c) {
    if (!chars) return c.is_valid && is_space(c.code);
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

bool is_upper(char32_t code) {
  return category(code) == UTF8PROC_CATEGORY_LU;
}
bool is_lower(char32_t code) {
  return category(code) == UTF8PROC_CATEGORY_LL || code == 0xAA || code == 0xBA;
}
bool is_cased(char32_t code) {
  return is_upper(code) || is_lower(code) || category(code) == UTF8PROC_CATEGORY_LT;
}
bool is_letter(char32_t code) {
  const utf8proc_category_t c = category(code);
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
bool is_decimal(char32_t code) {
  return category(code) == UTF8PROC_CATEGORY_ND;
}
bool is_digit(char32_t code) {
  return is_decimal(code) || code == 0xB2 || code == 0xB3 || code == 0xB9 || code == 0x2070 ||
         (code >= 0x2074 && code <= 0x2079) || (code >= 0x2080 && code <= 0x2089) ||
         (code >= 0x2460 && code <= 0x2468) || (code >= 0x2474 && code <= 0x247C) || (code >= 0x2488 && code <= 0x2490);
}
bool is_numeric(char32_t code) {
  constexpr std::u32string_view kLetters = U"〇一二三四五六七八九十百千万億亿兆零壹贰叁肆伍陆柒捌玖拾佰仟";
  const utf8proc_category_t c = category(code);
  return (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO) || kLetters.find(code) != kLetters.npos;
}
bool is_printable(char32_t code) {
  const utf8proc_category_t c = category(code);
  return code == ' ' || !(c == UTF8PROC_CATEGORY_CN || c >= UTF8PROC_CATEGORY_ZS);
}

std::string upper(char32_t code) {
  if (const Expansion* expansion = expansion_of(code)) return expansion->upper;
  return utf8_of(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code))));
}
std::string lower(char32_t code) {
  if (code == 0x130) return "i\u0307";
  return utf8_of(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
}
std::string title(char32_t code) {
  if (const Expansion* expansion = expansion_of(code)) return expansion->title;
  return utf8_of(static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code))));
}
std::string casefold(char32_t code) {
  utf8proc_int32_t folded[8];
  int last_class = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), folded, std::size(folded),
                                                         UTF8PROC_CASEFOLD, &last_class);
  std::string out;
  for (utf8proc_ssize_t i = 0; i < count && i < static_cast<utf8proc_ssize_t>(std::size(folded)); ++i) {
    out += utf8_of(static_cast<char32_t>(folded[i]));
  }
  return out;
}
char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

}  // namespace contexture::jinja

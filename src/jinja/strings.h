#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/// Python's strings are made of characters, ours of UTF-8: the functions that know it. Bytes that are no UTF-8 count as
/// a character each, without a case or any other property.
namespace contexture::jinja {

/// The character at a byte of a text, and its bytes.
struct Character {
  char32_t code;
  size_t size;
  bool is_valid = true;
};
Character character_at(std::string_view text, size_t at);
std::string utf8_of(char32_t code);

size_t count_characters(std::string_view text);
/// The byte where the character of this number begins; the text's size where there are fewer.
size_t place_of_character(std::string_view text, size_t number);
bool is_space(char32_t code);

/// Python's strip(chars): without `chars`, white space.
enum class Side { left, right, both };
std::string_view strip(std::string_view text, Side side = Side::both, const std::string_view* chars = nullptr);

bool is_upper(char32_t code);
bool is_lower(char32_t code);
bool is_cased(char32_t code);
bool is_letter(char32_t code);
bool is_decimal(char32_t code);
bool is_digit(char32_t code);    ///< decimals and others of one place, such as superscripts
bool is_numeric(char32_t code);  ///< digits, fractions, numbers as letters
bool is_printable(char32_t code);

/// What a character becomes: mostly one of its own, but "ss" is upper case "SS" of one.
std::string upper(char32_t code);
std::string lower(char32_t code);
std::string title(char32_t code);
std::string casefold(char32_t code);
/// Of ASCII alone.
char lower(char c);

/// Python's shortest text of a float: "1.0", "1e+16", "nan".
std::string float_text(double value);

}  // namespace contexture::jinja

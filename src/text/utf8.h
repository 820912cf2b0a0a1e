#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace contexture {

/// What a text begins with: a whole character; bytes that no continuation can make one (the "maximal subpart" of
/// Unicode's table 3-7, at least one byte); or the start of a character that the end of the text cuts off.
struct Utf8Sequence {
  enum class Kind : uint8_t { valid, invalid, incomplete };
  Kind kind;
  size_t size;  ///< bytes, at least 1
};

/// `text` is not empty. Surrogates, overlong forms and what lies above U+10FFFF are invalid.
Utf8Sequence next_utf8(std::string_view text);

/// How many bytes at the start of `text` are whole valid characters.
size_t valid_utf8_prefix(std::string_view text);

/// `code_point` is at most U+10FFFF.
void append_utf8(std::string& text, uint32_t code_point);

/// How many bytes at the start or at the end of `text` are Unicode's White_Space.
size_t white_space_prefix(std::string_view text);
size_t white_space_suffix(std::string_view text);

/// The bytes of U+FFFD, the replacement character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace contexture

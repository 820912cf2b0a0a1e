#pragma once

#include <cstddef>
#include <string>
#include <string_view>

/// Python's strings are made of characters, ours of UTF-8: the functions that know it. Bytes that are no UTF-8 count as
/// a character each. Letters are those of ASCII where case matters: templates fold roles and names, not prose.
namespace contexture::jinja {

/// The character at a byte of a text, and its bytes.
struct Character {
  char32_t code;
  size_t size;
};
Character character_at(std::string_view text, size_t at);

size_t count_characters(std::string_view text);
bool is_space(char32_t code);

/// Python's strip(chars): without `chars`, white space.
enum class Side { left, right, both };
std::string_view strip(std::string_view text, Side side = Side::both, const std::string_view* chars = nullptr);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
/// First letter of the text upper, all others lower.
std::string capitalize(std::string_view text);
/// First letter of every word upper, all others lower; words are runs of letters.
std::string title(std::string_view text);

/// Replaces all occurrences, or the first `most`.
std::string replace(std::string_view text, std::string_view from, std::string_view to, size_t most = std::string::npos);

/// Python's shortest text of a float: "1.0", "1e+16", "nan".
std::string float_text(double value);

}  // namespace contexture::jinja

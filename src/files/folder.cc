#include "files/folder.h"

#include <algorithm>

namespace contexture {

namespace fs = std::filesystem;

std::string_view look_up(std::span<const TensorName> names, std::string_view theirs) {
  for (const TensorName& name : names) {
    if (name.theirs == theirs) return name.gguf;
  }
  return {};
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::string_view take_number(std::string_view& text) {
  constexpr size_t most_digits = 6;
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const bool leading_zero = digits > 1 && text[0] == '0';
  if (digits == 0 || digits > most_digits || leading_zero || digits == text.size() || text[digits] != '.') return {};
  const std::string_view number = text.substr(0, digits);
  text.remove_prefix(digits + 1);
  return number;
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

fs::path folder_of(const fs::path& path) {
  if (is_folder(path)) return path;
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace contexture

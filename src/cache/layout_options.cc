#include "cache/layout_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "tensor/kv_row.h"

namespace contexture {

std::string LayoutOption::flag() const {
  std::string text = fmt::format("--{}", name);
  std::ranges::replace(text, '_', '-');
  return text;
}

std::string LayoutOption::allowed() const {
  if (kind == Kind::format) return kv_format_names();
  if (choices.empty()) return fmt::format("a whole number from {} to {}", low, high);
  std::string text;
  for (const int64_t choice : choices) {
    if (!text.empty()) text += choice == choices.back() ? " or " : ", ";
    text += fmt::format("{}", choice);
  }
  return text;
}

bool LayoutOption::allows(int64_t value) const {
  if (kind == Kind::format) return std::ranges::find(kv_formats(), static_cast<Format>(value)) != kv_formats().end();
  if (choices.empty()) return value >= low && value <= high;
  return std::ranges::find(choices, value) != choices.end();
}

int64_t LayoutOption::parse(const std::string& text) const {
  if (kind == Kind::format) {
    const std::optional<Format> format = format_from_name(text);
    if (format && is_kv_format(*format)) return static_cast<int64_t>(*format);
  } else {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && allows(value)) return value;
  }
  fail("{} is '{}'; give {}", name, printable(text), allowed());
}

std::string LayoutOption::text_of(int64_t value) const {
  if (kind == Kind::format) return std::string(contexture::name(static_cast<Format>(value)));
  return fmt::format("{}", value);
}

void LayoutOptions::set(std::string_view name, Value value) {
  unset(name);
  given_.push_back({std::string(name), value});
}

void LayoutOptions::unset(std::string_view name) {
  std::erase_if(given_, [&](const Given& given) { return given.name == name; });
}

bool LayoutOptions::has(std::string_view name) const {
  return std::ranges::any_of(given_, [&](const Given& given) { return given.name == name; });
}

int64_t LayoutOptions::number(const LayoutOption& option) const {
  for (const Given& given : given_) {
    if (given.name == option.name) return given.value.number;
  }
  return option.standard;
}

}  // namespace contexture

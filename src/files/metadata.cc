#include "files/metadata.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace contexture {
namespace {

template <typename T>
bool fits(int64_t value) {
  return value >= std::numeric_limits<T>::min() && value <= std::numeric_limits<T>::max();
}

/// "u32", or "array of u32".
std::string describe(const MetadataValue& value) {
  if (value.type != MetadataType::array) return std::string(name(value.type));
  return fmt::format("array of {}", name(value.element));
}

}  // namespace

std::string_view name(MetadataType type) {
  constexpr std::string_view names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
  const auto number = static_cast<size_t>(type);
  return number < std::size(names) ? names[number] : "unknown type";
}

void Metadata::add(std::string key, MetadataValue value) {
  const auto [place, fresh] = index_.try_emplace(key, entries_.size());
  if (!fresh) fail("{}: metadata key {} is there twice; use another file of this model", origin_, printable(key));
  entries_.emplace_back(std::move(key), std::move(value));
}

void Metadata::set(std::string key, MetadataValue value) {
  if (const auto place = index_.find(key); place != index_.end()) {
    entries_[place->second].second = std::move(value);
  } else {
    add(std::move(key), std::move(value));
  }
}

void Metadata::set_int(std::string key, int64_t value) {
  const MetadataType type = fits<uint32_t>(value) ? MetadataType::u32 : MetadataType::i64;
  set(std::move(key), {.type = type, .data = value});
}

void Metadata::set_float(std::string key, double value) {
  set(std::move(key), {.type = MetadataType::f32, .data = static_cast<double>(static_cast<float>(value))});
}

void Metadata::set_bool(std::string key, bool value) {
  set(std::move(key), {.type = MetadataType::boolean, .data = static_cast<int64_t>(value)});
}

void Metadata::set_string(std::string key, std::string value) {
  set(std::move(key), {.type = MetadataType::string, .data = std::move(value)});
}

void Metadata::set_strings(std::string key, std::vector<std::string> value) {
  set(std::move(key), {.type = MetadataType::array, .element = MetadataType::string, .data = std::move(value)});
}

void Metadata::set_ints(std::string key, std::vector<int64_t> value) {
  const bool small = std::all_of(value.begin(), value.end(), fits<int32_t>);
  const MetadataType element = small ? MetadataType::i32 : MetadataType::i64;
  set(std::move(key), {.type = MetadataType::array, .element = element, .data = std::move(value)});
}

void Metadata::set_floats(std::string key, std::vector<float> value) {
  set(std::move(key), {.type = MetadataType::array, .element = MetadataType::f32, .data = std::move(value)});
}

void Metadata::forget(std::string_view key) {
  const auto found = index_.find(key);
  if (found == index_.end()) return;
  const size_t place = found->second;
  index_.erase(found);
  entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(place));
  for (auto& [name, at] : index_) at -= at > place;
}

const MetadataValue* Metadata::find(std::string_view key) const {
  const auto place = index_.find(key);
  return place == index_.end() ? nullptr : &entries_[place->second].second;
}

const MetadataValue& Metadata::require(std::string_view key) const {
  const MetadataValue* value = find(key);
  if (!value)
    fail("{}: metadata key {} is missing, without which no such model can be read; use another file of this model",
         origin_, key);
  return *value;
}

void Metadata::fail_type(std::string_view key, const MetadataValue& value, std::string_view expected) const {
  fail("{}: metadata key {} is of type {}, not {}; use another file of this model", origin_, key, describe(value),
       expected);
}

void Metadata::fail_range(std::string_view key, std::string_view number, int64_t low, int64_t high) const {
  fail("{}: metadata key {} is {}, outside {} to {}; the model is damaged, or larger than this program supports",
       origin_, key, number, low, high);
}

int64_t Metadata::get_int(std::string_view key, int64_t low, int64_t high) const {
  const MetadataValue& value = require(key);
  if (value.type == MetadataType::array || value.type == MetadataType::boolean) fail_type(key, value, "an integer");
  return get_one_or_each(key, low, high).front();
}

std::vector<int64_t> Metadata::get_one_or_each(std::string_view key, int64_t low, int64_t high) const {
  const MetadataValue& value = require(key);
  const bool is_array = value.type == MetadataType::array;
  const auto* list = std::get_if<std::vector<int64_t>>(&value.data);
  const auto* number = std::get_if<int64_t>(&value.data);
  const auto* big = std::get_if<uint64_t>(&value.data);
  if (!list && !number && !big) fail_type(key, value, "an integer");
  if (big && *big > static_cast<uint64_t>(INT64_MAX)) fail_range(key, fmt::to_string(*big), low, high);
  std::vector<int64_t> numbers = list ? *list : std::vector{number ? *number : static_cast<int64_t>(*big)};
  for (const int64_t one : numbers) {
    const bool is_big = one < 0 && is_array && value.element == MetadataType::u64;
    if (is_big) fail_range(key, fmt::to_string(static_cast<uint64_t>(one)), low, high);
    if (one < low || one > high) fail_range(key, fmt::to_string(one), low, high);
  }
  return numbers;
}

int64_t Metadata::get_int(std::string_view key, int64_t low, int64_t high, int64_t fallback) const {
  return has(key) ? get_int(key, low, high) : fallback;
}

double Metadata::get_float(std::string_view key) const {
  const MetadataValue& value = require(key);
  const auto* number = std::get_if<double>(&value.data);
  if (!number) fail_type(key, value, "a float");
  if (!std::isfinite(*number)) fail("{}: metadata key {} is not a finite number; the model is damaged", origin_, key);
  return *number;
}

double Metadata::get_float(std::string_view key, double fallback) const {
  return has(key) ? get_float(key) : fallback;
}

bool Metadata::get_bool(std::string_view key, bool fallback) const {
  const MetadataValue* value = find(key);
  if (!value) return fallback;
  if (value->type != MetadataType::boolean) fail_type(key, *value, "a bool");
  return std::get<int64_t>(value->data) != 0;
}

std::string Metadata::get_string(std::string_view key) const {
  const MetadataValue& value = require(key);
  const auto* text = std::get_if<std::string>(&value.data);
  if (!text) fail_type(key, value, "a string");
  return *text;
}

std::string Metadata::get_string(std::string_view key, std::string_view fallback) const {
  return has(key) ? get_string(key) : std::string(fallback);
}

template <typename Array>
const Array& Metadata::get_array(std::string_view key, std::string_view expected) const {
  static const Array empty;
  const MetadataValue* value = find(key);
  if (!value) return empty;
  const auto* array = std::get_if<Array>(&value->data);
  if (!array || value->element == MetadataType::boolean) fail_type(key, *value, expected);
  return *array;
}

const std::vector<std::string>& Metadata::get_strings(std::string_view key) const {
  return get_array<std::vector<std::string>>(key, "an array of strings");
}

const std::vector<int64_t>& Metadata::get_ints(std::string_view key) const {
  const auto& numbers = get_array<std::vector<int64_t>>(key, "an array of integers");
  const MetadataValue* value = find(key);
  if (value && value->element == MetadataType::u64) {
    const auto large = std::find_if(numbers.begin(), numbers.end(), [](int64_t n) { return n < 0; });
    if (large != numbers.end()) {
      fail("{}: metadata key {} holds {}, which is too large; the model is damaged", origin_, key,
           static_cast<uint64_t>(*large));
    }
  }
  return numbers;
}

const std::vector<float>& Metadata::get_floats(std::string_view key) const {
  return get_array<std::vector<float>>(key, "an array of floats");
}

}  // namespace contexture

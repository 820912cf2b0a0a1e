#include "files/json_object.h"

#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "base/mapped_file.h"

namespace contexture {
namespace {

/// The largest of a model's JSON files, its lists of tensors and of tokens, take a few megabytes.
constexpr size_t largest_file = 16 << 20;

std::optional<int64_t> whole(const nlohmann::json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) return std::nullopt;
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (std::trunc(number) != number || std::abs(number) > 0x1p53) return std::nullopt;
  return static_cast<int64_t>(number);
}

}  // namespace

JsonObject::JsonObject(nlohmann::json value, std::string file) : value_(std::move(value)), file_(std::move(file)) {
  if (!value_.is_object()) fail("{}: no JSON object; download the file again", printable(file_, 400));
}

const nlohmann::json* JsonObject::find(std::string_view key) const {
  const auto found = value_.find(key);
  return found == value_.end() || found->is_null() ? nullptr : &*found;
}

std::string JsonObject::shown(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (!value) return "missing";
  // Not dumped as a whole: it may be of any size.
  if (value->is_structured()) return value->type_name();
  return printable(value->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void JsonObject::refuse(std::string_view key, std::string_view expected) const {
  fail("{}: {} is {}, where {} belongs; use another copy of this file", printable(file_, 400), key, shown(key),
       expected);
}

const nlohmann::json& JsonObject::require(std::string_view key, std::string_view expected) const {
  const nlohmann::json* value = find(key);
  if (!value) refuse(key, expected);
  return *value;
}

int64_t JsonObject::get_int(std::string_view key, int64_t low, int64_t high) const {
  const std::optional<int64_t> number = whole(require(key, "a whole number"));
  if (!number || *number < low || *number > high) refuse(key, fmt::format("a whole number of {} to {}", low, high));
  return *number;
}

int64_t JsonObject::get_int(std::string_view key, int64_t low, int64_t high, int64_t fallback) const {
  return has(key) ? get_int(key, low, high) : fallback;
}

double JsonObject::get_number(std::string_view key) const {
  const nlohmann::json& value = require(key, "a number");
  if (!value.is_number()) refuse(key, "a number");
  return value.get<double>();
}

double JsonObject::get_number(std::string_view key, double fallback) const {
  return has(key) ? get_number(key) : fallback;
}

bool JsonObject::get_bool(std::string_view key, bool fallback) const {
  const nlohmann::json* value = find(key);
  if (!value) return fallback;
  if (!value->is_boolean()) refuse(key, "true or false");
  return value->get<bool>();
}

std::string JsonObject::get_string(std::string_view key, std::string_view fallback) const {
  const nlohmann::json* value = find(key);
  if (!value) return std::string(fallback);
  if (!value->is_string()) refuse(key, "a string");
  return value->get<std::string>();
}

std::vector<float> JsonObject::get_floats(std::string_view key) const {
  std::vector<float> numbers;
  const nlohmann::json* value = find(key);
  if (!value) return numbers;
  if (!value->is_array()) refuse(key, "a list of numbers");
  for (const nlohmann::json& element : *value) {
    if (!element.is_number()) refuse(key, "a list of numbers");
    numbers.push_back(element.get<float>());
  }
  return numbers;
}

JsonObject JsonObject::get_object(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (!value) return JsonObject(nlohmann::json::object(), file_);
  if (!value->is_object()) refuse(key, "an object");
  return JsonObject(*value, file_);
}

void JsonObject::add_missing(const nlohmann::json& fields) {
  for (const auto& [key, value] : fields.items()) value_.emplace(key, value);
}

JsonObject read_json_file(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() > largest_file) {
    fail("{}: {} bytes of JSON, more than the {} that a model's file may have", printable(path, 400), bytes.size(),
         largest_file);
  }
  return JsonObject(parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path), path);
}

}  // namespace contexture

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace contexture {

/// A JSON object of a stranger's file, read field by field. A field that is null counts as missing. Getters throw Error
/// (the file, the field, what was expected) where a field has another type, or is missing and has no fallback.
class JsonObject {
 public:
  JsonObject() : value_(nlohmann::json::object()) {}
  /// Throws Error where `value` is no object. `file` is for messages.
  JsonObject(nlohmann::json value, std::string file);

  const std::string& file() const { return file_; }
  const nlohmann::json& value() const { return value_; }

  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// Null where missing.
  const nlohmann::json* find(std::string_view key) const;

  /// Whole numbers (1e3 and 2.0 are), within [low, high].
  int64_t get_int(std::string_view key, int64_t low, int64_t high) const;
  int64_t get_int(std::string_view key, int64_t low, int64_t high, int64_t fallback) const;
  double get_number(std::string_view key) const;
  double get_number(std::string_view key, double fallback) const;
  bool get_bool(std::string_view key, bool fallback) const;
  std::string get_string(std::string_view key, std::string_view fallback) const;
  /// Empty where missing.
  std::vector<float> get_floats(std::string_view key) const;
  /// An empty object where missing.
  JsonObject get_object(std::string_view key) const;

  /// Puts in the fields that are missing here; one that is null here stays so.
  void add_missing(const nlohmann::json& fields);

  /// A field's value as messages show it: one line, and not long.
  std::string shown(std::string_view key) const;
  /// Throws Error: the field is not what is expected.
  [[noreturn]] void refuse(std::string_view key, std::string_view expected) const;

 private:
  const nlohmann::json& require(std::string_view key, std::string_view expected) const;

  nlohmann::json value_;
  std::string file_;
};

/// Reads a file that holds one JSON object, of 16 MiB at most. Throws Error.
JsonObject read_json_file(const std::string& path);

}  // namespace contexture

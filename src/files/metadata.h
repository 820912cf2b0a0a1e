#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace contexture {

/// Types of GGUF metadata, with the numbers that GGUF gives them.
enum class MetadataType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

/// As error messages and tables call it: "u32", "string".
std::string_view name(MetadataType type);

/// A value as a model file gives it; `type` (and `element`, for arrays) remember what the file said.
///
///   u64                   uint64_t        the only type that int64_t cannot hold
///   other integers, bool  int64_t
///   f32, f64              double
///   array of integers     vector<int64_t> (of u64 too, as two's complement: get_ints refuses what does not fit)
///   array of floats       vector<float>   (of f64 too, rounded: no model stores such an array)
///   array of arrays       vector<MetadataValue>
struct MetadataValue {
  MetadataType type = MetadataType::u8;
  MetadataType element = MetadataType::u8;
  std::variant<int64_t, uint64_t, double, std::string, std::vector<int64_t>, std::vector<float>,
               std::vector<std::string>, std::vector<MetadataValue>>
      data;

  bool operator==(const MetadataValue&) const = default;
};

/// The key-value pairs of a model file, whatever its format: every reader in this folder presents its file in GGUF's
/// vocabulary ("llama.block_count", "tokenizer.ggml.tokens"), so that a family is read in one way.
class Metadata {
 public:
  /// The file that errors shall name; without it they say "the model".
  void set_origin(std::string path) { origin_ = std::move(path); }
  const std::string& origin() const { return origin_; }

  /// Throws Error where the key is there already.
  void add(std::string key, MetadataValue value);

  /// Setters replace what was there. Integers become u32 (arrays: i32) where they fit, else i64, and floats f32: the
  /// types that other programs expect of the usual keys.
  void set(std::string key, MetadataValue value);
  void set_int(std::string key, int64_t value);
  void set_float(std::string key, double value);
  void set_bool(std::string key, bool value);
  void set_string(std::string key, std::string value);
  void set_strings(std::string key, std::vector<std::string> value);
  void set_ints(std::string key, std::vector<int64_t> value);
  void set_floats(std::string key, std::vector<float> value);
  /// Removes the pair and gives its memory back: a vocabulary's tables, say, once a tokenizer has been made of them.
  void forget(std::string_view key);

  bool has(std::string_view key) const { return find(key) != nullptr; }
  const MetadataValue* find(std::string_view key) const;

  /// Getters throw Error where the key is missing (the forms without a fallback), or has another type, or (get_int)
  /// lies outside [low, high], or (get_float) is not a finite number.
  int64_t get_int(std::string_view key, int64_t low, int64_t high) const;
  int64_t get_int(std::string_view key, int64_t low, int64_t high, int64_t fallback) const;
  /// A number for all layers or an array of one for each, of integers or bools: one element, or as many as there are.
  std::vector<int64_t> get_one_or_each(std::string_view key, int64_t low, int64_t high) const;
  double get_float(std::string_view key) const;
  double get_float(std::string_view key, double fallback) const;
  bool get_bool(std::string_view key, bool fallback) const;
  std::string get_string(std::string_view key) const;
  std::string get_string(std::string_view key, std::string_view fallback) const;
  /// Empty where the key is missing; Error where it has another type. The reference lives as long as this.
  const std::vector<std::string>& get_strings(std::string_view key) const;
  const std::vector<int64_t>& get_ints(std::string_view key) const;
  const std::vector<float>& get_floats(std::string_view key) const;

  /// In the order of the file.
  const std::vector<std::pair<std::string, MetadataValue>>& entries() const { return entries_; }

 private:
  const MetadataValue& require(std::string_view key) const;
  [[noreturn]] void fail_type(std::string_view key, const MetadataValue& value, std::string_view expected) const;
  [[noreturn]] void fail_range(std::string_view key, std::string_view number, int64_t low, int64_t high) const;
  template <typename Array>
  const Array& get_array(std::string_view key, std::string_view expected) const;

  std::string origin_ = "the model";
  std::vector<std::pair<std::string, MetadataValue>> entries_;
  /// key -> place in `entries_`. Ordered, because a file can be made whose keys share one hash.
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace contexture

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace contexture {

/// A value that a pickle makes. Others are named by their place in the pickle's table (`Pickle::at`), so values may be
/// shared and even hold themselves without harm.
struct PickleValue {
  enum class Kind : uint8_t { none, boolean, integer, real, text, list, dict, global, storage, tensor };
  Kind kind = Kind::none;
  int64_t integer = 0;          ///< boolean, integer
  double real = 0;              ///< real
  std::string_view text;        ///< text; of a global its full name, of a storage its type's ("torch.FloatStorage")
  std::vector<uint32_t> items;  ///< list (tuples too): elements; dict: key, value, key, value, …;
                                ///< storage: its key (a text); tensor: storage, offset, shape, strides
};

/// A pickle as torch.save writes it for tensors, numbers, texts, and lists and dictionaries of them. Nothing is
/// executed: a machine that knows only the opcodes and globals that such a file needs, and refuses every other by name.
class Pickle {
 public:
  /// Throws Error, one line with the byte and what is there. `path` is for messages.
  Pickle(std::vector<char> bytes, const std::string& path);

  const PickleValue& root() const { return values_[root_]; }
  const PickleValue& at(uint32_t place) const { return values_[place]; }
  /// The value of a dict's text key, the last where there are several; null where there is none, or no dict.
  const PickleValue* find(const PickleValue& dict, std::string_view key) const;

 private:
  friend class Unpickler;
  std::vector<char> bytes_;  // texts point here
  std::vector<PickleValue> values_;
  uint32_t root_ = 0;
};

}  // namespace contexture

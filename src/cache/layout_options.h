#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/format.h"

namespace contexture {

/// An option of a layout, as the layout's file declares it, once: flags, the library's options, JSON, descriptions,
/// comparisons and session files are all made of this.
struct LayoutOption {
  enum class Kind : uint8_t { number, format };

  std::string_view name;   ///< "hot_tokens": in JSON so, as a flag --hot-tokens
  std::string_view label;  ///< in descriptions: "hot 256"
  std::string_view help;
  Kind kind = Kind::number;
  int64_t standard = 0;  ///< where nobody says; of a format, its number in Format
  int64_t low = 0, high = int64_t{1} << 40;
  std::span<const int64_t> choices = {};  ///< where there are any, one of these and not a range
  std::span<const int64_t> tried = {};    ///< numbers that `verify layouts` tries; of formats it tries all
  /// Which rows a query reads, or in which format, follows from it: caches that differ in it give other bits.
  bool decides_rows = false;
  /// Of plans for many sequences at once, and no flag elsewhere.
  bool of_many = false;

  std::string flag() const;
  /// "a format that a cache has", "8, 16 or 32", "a whole number from 1 to 9".
  std::string allowed() const;
  bool allows(int64_t value) const;
  /// Throws Error where the text is none of what is allowed.
  int64_t parse(const std::string& text) const;
  std::string text_of(int64_t value) const;
};

/// What a plan says of its layout's options; the rest is as they have it.
class LayoutOptions {
 public:
  struct Value {
    template <std::integral Number>
    Value(Number number) : number(static_cast<int64_t>(number)) {}
    Value(Format format) : number(static_cast<int64_t>(format)) {}
    int64_t number;
  };
  struct Given {
    std::string name;
    Value value;
  };

  LayoutOptions() = default;
  LayoutOptions(std::initializer_list<Given> given) : given_(given) {}

  void set(std::string_view name, Value value);
  void unset(std::string_view name);
  bool has(std::string_view name) const;
  int64_t number(const LayoutOption& option) const;
  size_t size(const LayoutOption& option) const { return static_cast<size_t>(number(option)); }
  Format format(const LayoutOption& option) const { return static_cast<Format>(number(option)); }
  std::span<const Given> given() const { return given_; }

 private:
  std::vector<Given> given_;
};

}  // namespace contexture

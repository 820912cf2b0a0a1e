#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace contexture {

/// A family's metadata: every key without the architecture's name in front ("block_count" for "qwen3.block_count"). A
/// number that files may give for each layer is taken where all layers have the same. Remembers what was asked for, so
/// that no key that changes the answer is passed over (refuse_unread).
class FamilyKeys {
 public:
  explicit FamilyKeys(const Metadata& metadata);

  std::string full(std::string_view key) const { return architecture_ + "." + std::string(key); }
  bool has(std::string_view key) const { return metadata_.has(full(key)); }
  size_t layers() const;
  size_t size(std::string_view key, int64_t high) const;  ///< from 1
  size_t size(std::string_view key, int64_t low, int64_t high, size_t fallback) const;
  bool flag(std::string_view key, bool fallback) const;
  double number(std::string_view key, double fallback) const;
  /// A factor of a computation: positive and finite, or Error.
  float factor(std::string_view key, double fallback) const;
  std::string text(std::string_view key, std::string_view fallback) const;
  /// One number for every layer, (layers). `is_each`, where given: whether the file has them one by one (an array, or a
  /// bool).
  std::vector<int64_t> each(std::string_view key, int64_t low, int64_t high, size_t fallback,
                            bool* is_each = nullptr) const;

  /// Throws Error where the file has a key of this family that nobody asked for, that changes what a model computes,
  /// and whose value is not the one that changes nothing.
  void refuse_unread(const ModelConfig& config) const;
  /// Throws Error: the key's value, and why it cannot be.
  [[noreturn]] void refuse(std::string_view key, std::string_view why) const;

  const std::string& architecture() const { return architecture_; }
  const Metadata& metadata() const { return metadata_; }

 private:
  std::string asked(std::string_view key) const;

  const Metadata& metadata_;
  std::string architecture_;
  mutable std::set<std::string, std::less<>> asked_;
};

}  // namespace contexture

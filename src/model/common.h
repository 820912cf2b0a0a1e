#pragma once

#include <string>
#include <string_view>

#include "model/config.h"

namespace contexture {

/// A family's metadata: every key without the architecture's name in front ("block_count" for "qwen3.block_count").
class FamilyKeys {
 public:
  explicit FamilyKeys(const Metadata& metadata);

  std::string full(std::string_view key) const { return architecture_ + "." + std::string(key); }
  bool has(std::string_view key) const { return metadata_.has(full(key)); }
  size_t size(std::string_view key, int64_t high) const;  ///< from 1
  size_t size(std::string_view key, int64_t low, int64_t high, size_t fallback) const;
  double number(std::string_view key, double fallback) const;
  /// A factor of a computation: positive and finite, or Error.
  float factor(std::string_view key, double fallback) const;
  std::string text(std::string_view key, std::string_view fallback) const;
  const std::string& architecture() const { return architecture_; }
  const Metadata& metadata() const { return metadata_; }

 private:
  const Metadata& metadata_;
  std::string architecture_;
};

/// What every family reads alike: sizes, heads, norm, rotation, experts. `style`: how the family's GGUF files hold Q
/// and K; readers of other files say when theirs differ (the key rope.style). Throws Error as read_config.
ModelConfig common_config(const FamilyKeys& keys, RopeStyle style);

/// Sets the window of every layer that `has_window(layer)`; the key attention.sliding_window names it, 0 means none.
template <class HasWindow>
void set_windows(ModelConfig& config, size_t window, const HasWindow& has_window) {
  for (size_t layer = 0; layer < config.layers; ++layer) {
    if (has_window(layer)) config.each_layer[layer].window = static_cast<int64_t>(window);
  }
}

/// The window that the file names, or `fallback`.
size_t window_of(const FamilyKeys& keys, size_t fallback = 0);

}  // namespace contexture

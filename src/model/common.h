#pragma once

#include <vector>

#include "model/family_keys.h"

namespace contexture {

/// What every family reads alike: sizes, heads, norm, rotation, experts. `style`: how the family's GGUF files hold Q
/// and K; readers of other files say when theirs differ (the key rope.style). Throws Error as read_config.
ModelConfig common_config(const FamilyKeys& keys, RopeStyle style);

/// Sets the windows of the layers that have one, and says which do. attention.sliding_window names it (0 means none),
/// or `window`; attention.sliding_window_pattern says after how many layers one has none (1: all, 0: never), or of each
/// layer whether it has one; or `pattern`, in the first way.
std::vector<bool> set_windows(const FamilyKeys& keys, ModelConfig& config, size_t window, size_t pattern);

}  // namespace contexture

#pragma once

#include <algorithm>
#include <span>

#include "text/vocabulary.h"

namespace contexture {

/// The last `count` tokens, or all that there are; -1: all.
inline std::span<const TokenId> last_tokens(std::span<const TokenId> history, int32_t count) {
  return count < 0 ? history : history.last(std::min(history.size(), static_cast<size_t>(count)));
}

}  // namespace contexture
